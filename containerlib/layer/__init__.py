"""Layer archives: apply and make."""
