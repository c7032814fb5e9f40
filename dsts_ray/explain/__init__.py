"""What the neurons of a model learned, as figures, tables and clips."""
