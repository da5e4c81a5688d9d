"""Mine landmark genes from expression compendia."""
