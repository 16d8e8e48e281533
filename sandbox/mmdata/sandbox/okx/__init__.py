"""OKX v5 public market data, as its protocol sheet says: messages, feed, session, REST; all pure."""
