# diagnose.gp: the pictures of `bptt diagnose --plot`.  diagnose_plot.c writes the figures into a folder of its own, sets the
# variables (folder, name, H, T, K, N, weights, memory, rows, heat_labels, heat_least, heat_most, norm_least ... lag_most, ratio_most, peak, grows) and loads this.
#
#   states.dat   t, |dL/dh_t|            lags.dat     lag, mean |dL_s/dh_{s-lag}|      heat.dat   a row of lags for each loss step s
#   jacobian.dat n, norm, least, most    cuts.dat     K, cosine, norm ratio, worst cosine

set datafile missing "NaN"
set border 3 lc rgb "#606060"
set tics nomirror out scale 0.5 textcolor rgb "#303030"
set grid xtics ytics lc rgb "#e4e4e4" lw 1 lt 1
set format y "%g"
model = sprintf("%s:  H = %d,  T = %d,  K = %d,  %d sequence%s,  %s", name, H, T, K, N, N == 1 ? "" : "s", weights)
blue = "#08519c"
orange = "#d94801"
grey = "#8c8c8c"
decades = "10^{%L}"

do for [kind in "svg png"] {
    if (kind eq "png") {
        set terminal pngcairo size 1400,1000 font "DejaVu Sans,12" background rgb "white"
    } else {
        set terminal svg size 1400,1000 font "DejaVu Sans,14" background rgb "white"
    }

    # --- curves ---
    set output folder."/curves.".kind
    set multiplot layout 2,2 title model noenhanced font ",15" margins 0.075,0.975,0.075,0.90 spacing 0.10,0.135
    set key inside opaque reverse Left width -3 spacing 1.15 samplen 2 font ",11" box lc rgb "#d0d0d0"

    set title "gradient of a sequence's loss by the state of each step"
    set xlabel "time step t"
    set ylabel "|dL/dh_t|"
    set xrange [0.5:T + 0.5]
    set yrange [norm_least:norm_most]
    set logscale y
    set format y decades
    unset key
    plot folder."/states.dat" using 1:2 with linespoints lc rgb blue lw 2 pt 7 ps (T > 64 ? 0.3 : 0.7)

    set title "gradient of one step's loss by the state lag steps before"
    set xlabel "lag, steps"
    set ylabel "mean of |dL_s/dh_{s-lag}| over s"
    set xrange [-0.5:T - 0.5]
    set yrange [lag_least:10 * lag_most]
    if (grows) { set key top left } else { set key top right }
    set arrow 1 from memory, graph 0 to memory, graph 1 nohead lc rgb orange lw 1.5 dt 2
    plot folder."/lags.dat" using 1:2 with linespoints lc rgb blue lw 2 pt 7 ps (T > 64 ? 0.3 : 0.7) notitle, \
         peak / 100 with lines lc rgb grey dt 3 lw 2 title "1 % of the peak", \
         NaN with lines lc rgb orange lw 1.5 dt 2 title sprintf("effective memory, %d steps", memory)
    unset arrow 1

    set title "product of the recurrent Jacobians over n steps"
    set xlabel "n, steps"
    set ylabel "spectral norm"
    set logscale x 2
    set format x "%g"
    set xrange [0.9:T * 1.12]
    set yrange [grows ? jacobian_least : jacobian_least / 10:grows ? 10 * jacobian_most : jacobian_most]
    if (grows) { set key top left } else { set key bottom left }
    plot 1 with lines lc rgb grey dt 3 lw 2 title "1: kept as it is", \
         folder."/jacobian.dat" using 1:3:4 with filledcurves fc rgb blue fs transparent solid 0.15 title "least to most of the windows", \
         folder."/jacobian.dat" using 1:2 with linespoints lc rgb blue lw 2 pt 7 ps 0.9 title "geometric mean"

    unset logscale y
    set format y "%g"
    set title "gradient truncated at K against the full one"
    set xlabel "K, steps"
    set ylabel "cosine, ratio of the norms"
    set yrange [ratio_least:ratio_most]
    set key top left maxrows 3
    set arrow 1 from K, graph 0 to K, graph 1 nohead lc rgb grey lw 1.5 dt 2
    plot 0.95 with lines lc rgb grey dt 3 lw 2 title "0.95", \
         folder."/cuts.dat" using 1:2 with linespoints lc rgb blue lw 2 pt 7 ps 0.9 title "cosine, all parameters", \
         folder."/cuts.dat" using 1:4 with linespoints lc rgb "#56a0d8" lw 1.5 pt 5 ps 0.7 title "cosine, the worst tensor", \
         folder."/cuts.dat" using 1:3 with linespoints lc rgb orange lw 2 pt 9 ps 1.0 title "|truncated| / |full|", \
         NaN with lines lc rgb grey lw 1.5 dt 2 title sprintf("the spec's K = %d", K)
    unset arrow 1
    unset multiplot
    unset logscale x
    unset output

    # --- heat map ---
    set output folder."/heat.".kind
    set title model noenhanced font ",15"
    set xlabel "lag, steps back from the loss"
    set ylabel "step s of the loss"
    set cblabel "|dL_s/dh_{s-lag}|" offset 1.5
    set xrange [-0.5:T - 0.5]
    set yrange [0.5:rows + 0.5]
    eval heat_labels
    set format x "%g"
    set logscale cb
    set format cb decades
    set cbrange [heat_least:heat_most]
    set palette defined (0 "#000004", 1 "#1b0c41", 2 "#4a0c6b", 3 "#781c6d", 4 "#a52c60", 5 "#cf4446", 6 "#ed6925", 7 "#fb9b06", \
                         8 "#f7d13d", 9 "#fcffa4")
    set lmargin at screen 0.075
    set rmargin at screen 0.86
    set tmargin at screen 0.93
    set bmargin at screen 0.075
    set key bottom right maxrows auto opaque reverse Left box lc rgb "#d0d0d0"
    set arrow 1 from memory, graph 0 to memory, graph 1 nohead front lc rgb "#00a0a0" lw 2.5 dt 2
    plot folder."/heat.dat" matrix using 1:(rows > 1 ? $2 + 1 : 0.75 + 0.5 * $2):($3 > 0 && $3 < heat_least ? heat_least : $3) with image notitle, \
         NaN with lines lc rgb "#00a0a0" lw 2.5 dt 2 title sprintf("effective memory, %d steps", memory)
    unset arrow 1
    set ytics autofreq
    unset logscale cb
    unset lmargin
    unset rmargin
    unset tmargin
    unset bmargin
    unset output
}
