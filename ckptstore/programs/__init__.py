"""Programs: what a module computes, as a list of operators that runs where its class is not."""
