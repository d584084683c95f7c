-- The output layer over the cell's h, and the loss of the spec.  output is the number of logits, or of reals; target is the label, or
-- the reals that are wanted.

W_hy = matrix(output, hidden, "out.weight")
b_y = vector(output, "out.bias")

o = W_hy * h + b_y
loss = criterion(output_activation(o), target)
