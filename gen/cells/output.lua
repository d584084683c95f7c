-- The output layer and the loss of the spec.  top is the last layer's output, or else its first state; inputs is its size, outputs the
-- number of logits, or of reals; target is the label, or the reals that are wanted.  Tied, the embedding's table is the matrix.

if not tie then W_hy = matrix(outputs, inputs, "out.weight") end
b_y = vector(outputs, "out.bias")

o = (tie and transposed(E, top) or W_hy * top) + b_y
loss = criterion(output_activation(o), target)
