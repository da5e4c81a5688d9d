"""What a panel is and how it is evaluated: panels, sketch, cohorts, predictors, measures."""
