"""Places that share ground or pixels, which splits must not separate."""
