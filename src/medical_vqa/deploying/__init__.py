"""Deployment files: containers, Cloud Run, Spaces, compose and Kubernetes, rendered for a chosen model."""
