"""The command `mmdata`: a thin shell around functions of the wings; each is loaded when it is called."""
