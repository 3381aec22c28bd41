"""What tests are done on: small inputs, files and stores with known content."""
