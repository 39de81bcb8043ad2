"""Public data sets and weights, downloaded so that what arrives is what was published."""
