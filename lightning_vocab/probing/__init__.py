"""Short trainings that rank initializers on a recipe of `lightning-vocab fit`."""
