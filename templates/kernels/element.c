% local element = kernels.elements[k.op]
${signature(k)}
{
% if element.each then
%   local each = element[2]:gsub("LOG", f32 and "logf" or "log")
    for (ptrdiff_t j = 0; j < n; j++) {
        const real a = in[j];
        out[j] = ${each};
    }
% else
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const vec a = load(in + j);
% if element[1] == 2 then
        const vec b = load(with + j);
% end
        store(out + j, ${element[2]});
    }
% end
}
