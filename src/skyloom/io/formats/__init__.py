"""Files as bytes, headers, arrays, tables and text."""
