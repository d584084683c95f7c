-- The gated recurrent unit in PyTorch's form (Cho et al. 2014, but the reset gate works on W_hn h + b_hn, after the product).
-- [i/n]: block i of n of the tensor in a weight file.  A gate's two biases in a file are trained as one; the candidate's are two.

W_xr = matrix(hidden, input, "rnn.weight_ih[1/3]")
W_xz = matrix(hidden, input, "rnn.weight_ih[2/3]")
W_xn = matrix(hidden, input, "rnn.weight_ih[3/3]")
W_hr = matrix(hidden, hidden, "rnn.weight_hh[1/3]")
W_hz = matrix(hidden, hidden, "rnn.weight_hh[2/3]")
W_hn = matrix(hidden, hidden, "rnn.weight_hh[3/3]")
b_r = vector(hidden, "rnn.bias_ih[1/3]", "rnn.bias_hh[1/3]")
b_z = vector(hidden, "rnn.bias_ih[2/3]", "rnn.bias_hh[2/3]")
b_xn = vector(hidden, "rnn.bias_ih[3/3]")
b_hn = vector(hidden, "rnn.bias_hh[3/3]")
h = state(hidden)

a_r = W_xr * x + W_hr * h + b_r
a_z = W_xz * x + W_hz * h + b_z
r = sigmoid(a_r)
z = sigmoid(a_z)
m = W_hn * h + b_hn
a_n = W_xn * x + b_xn + r * m
n = tanh(a_n)
h = n + z * (h - n)
