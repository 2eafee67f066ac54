"""What is measured of a fitted story, and which figures may be compared."""
