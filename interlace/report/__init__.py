"""What the pipeline found, for people: summary, terminal views, figures, model card. No torch."""
