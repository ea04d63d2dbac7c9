"""What a tensor is made of: memory, shapes and strides, elements, and their exchange with other libraries."""
