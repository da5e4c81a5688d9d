"""What a panel is and how it is judged: panels, sketch, cohorts, predictors, measures."""
