"""Everything that is no product of matrices gets its threads here."""
