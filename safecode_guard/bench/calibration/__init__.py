"""What a judge's probabilities are worth: fitted on labelled scenes, told on others."""
