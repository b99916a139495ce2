"""What images are written to beside registries: layouts and archives."""
