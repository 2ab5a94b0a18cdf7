"""What libraries for TVM's virtual machine share, whichever device computes."""
