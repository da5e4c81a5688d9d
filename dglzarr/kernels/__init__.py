"""Numbers: numpy and scipy only; arrays in, arrays out."""
