"""Plan, run, measure and publish: what a compression costs a model in quality and gives it in speed."""
