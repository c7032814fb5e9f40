"""Reports on sweeps: tables and figures, from MLflow alone."""
