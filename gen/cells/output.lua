-- The output layer over the cell's h, and the loss.  y is the label; output is the number of logits.

W_hy = matrix(output, hidden, "out.weight")
b_y = vector(output, "out.bias")

o = W_hy * h + b_y
loss = cross_entropy(o, y)
