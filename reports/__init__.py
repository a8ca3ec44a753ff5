"""Tables, figures, montages and one HTML report, computed from score tables and run records alone."""
