"""The objects users train with, as plain data: modules, optimizers, tensors, random generators."""
