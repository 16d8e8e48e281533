"""Binance spot, as its protocol sheet says: messages, feed, session, REST; all pure."""
