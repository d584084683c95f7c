-- The Elman cell.  Each assignment is an equation; its left side names the value.  Assigning to a state gives its value after step t;
-- before that line its name means the value after step t-1.  x is the input; hidden and input are sizes; phi is the spec's activation.
-- In files the names get the layer's number: rnn.weight_ih_l0.

W_xh = matrix(hidden, input, "rnn.weight_ih")
W_hh = matrix(hidden, hidden, "rnn.weight_hh")
b_h = vector(hidden, "rnn.bias_ih", "rnn.bias_hh")
h = state(hidden)

a = W_xh * x + W_hh * h + b_h
h = phi(a)
