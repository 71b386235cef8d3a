"""What others would do in place of SafeCoDe, each named after its source."""
