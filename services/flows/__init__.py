"""The flows of the documents that the suite must satisfy, one module each."""
