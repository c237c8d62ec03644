"""Results for people: summary, terminal views, figures, page, model cards. No torch."""
