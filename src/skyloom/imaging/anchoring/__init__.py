"""An image brought to the flux scale and the sky of another instrument's, with the errors of that."""
