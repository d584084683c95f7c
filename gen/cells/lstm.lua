-- The long short-term memory with a forget gate (Gers et al. 2000), gates in PyTorch's order: input, forget, candidate, output.
-- [i/n]: block i of n of the tensor in a weight file.

W_xi = matrix(hidden, input, "rnn.weight_ih[1/4]")
W_xf = matrix(hidden, input, "rnn.weight_ih[2/4]")
W_xg = matrix(hidden, input, "rnn.weight_ih[3/4]")
W_xo = matrix(hidden, input, "rnn.weight_ih[4/4]")
W_hi = matrix(hidden, hidden, "rnn.weight_hh[1/4]")
W_hf = matrix(hidden, hidden, "rnn.weight_hh[2/4]")
W_hg = matrix(hidden, hidden, "rnn.weight_hh[3/4]")
W_ho = matrix(hidden, hidden, "rnn.weight_hh[4/4]")
b_i = vector(hidden, "rnn.bias_ih[1/4]", "rnn.bias_hh[1/4]")
b_f = vector(hidden, "rnn.bias_ih[2/4]", "rnn.bias_hh[2/4]", forget_bias)
b_g = vector(hidden, "rnn.bias_ih[3/4]", "rnn.bias_hh[3/4]")
b_o = vector(hidden, "rnn.bias_ih[4/4]", "rnn.bias_hh[4/4]")
h = state(hidden)
c = state(hidden)

a_i = W_xi * x + W_hi * h + b_i
a_f = W_xf * x + W_hf * h + b_f
a_g = W_xg * x + W_hg * h + b_g
a_o = W_xo * x + W_ho * h + b_o
i = sigmoid(a_i)
f = sigmoid(a_f)
g = tanh(a_g)
o = sigmoid(a_o)
c = f * c + i * g
h = o * tanh(c)
