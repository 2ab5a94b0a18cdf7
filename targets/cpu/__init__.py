"""CPU libraries: one shared object with compressed weights inside, run by TVM's runtime."""
