"""How a result is drawn and shown; none is computed here."""
