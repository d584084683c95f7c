# plot.gp: `make bench-plot`: draws what `make bench-peers` wrote.  gnuplot -e "folder='build/bench'" tests/bench/plot.gp
#
# peers.csv (a line for each row and system) becomes speed.svg and .png; with machine.csv also roofline.svg and .png.  They show
# cell rnn; the rows of other cells, if there are any, become gates.svg and .png.

set datafile separator ","
set datafile missing NaN   # so that a line of another system does not cut a curve
peers = folder."/peers.csv"
figure(what) = real("0".system(sprintf("awk -F, '$1 == \"%s\" { print $2 }' %s/machine.csv", what, folder)))
peak = figure("peak")
top = 1.7 * peak   # of an axis

# --- systems, in the order of the key ---

systems = "cc tcc onednn 1dnngemm openblas generic torch numpy"
titles = "'bptt, cc' 'bptt, tcc' 'oneDNN, RNN primitives' 'C loops over oneDNN sgemm' 'C loops over OpenBLAS' ".\
         "'plain C loops' PyTorch numpy"
set linetype 1 lc rgb "#08519c" lw 3.0 pt 7 ps 1.0
set linetype 2 lc rgb "#56a0d8" lw 2.0 pt 5 ps 0.9
set linetype 3 lc rgb "#d94801" lw 2.5 pt 9 ps 1.2
set linetype 4 lc rgb "#fdae6b" lw 1.5 pt 11 ps 1.1
set linetype 5 lc rgb "#8c6bb1" lw 1.5 pt 13 ps 1.2
set linetype 6 lc rgb "#737373" lw 1.5 pt 4 ps 0.8
set linetype 7 lc rgb "#2e9e4f" lw 1.5 pt 6 ps 1.0
set linetype 8 lc rgb "#b08d00" lw 1.5 pt 1 ps 1.0

set border 3 lc rgb "#606060"
set tics nomirror out scale 0.5 textcolor rgb "#303030"
set grid xtics ytics lc rgb "#e4e4e4" lw 1 lt 1
set logscale xy

# `value` on a line of cell rnn and system number s whose batch is from `least` to `most`, else nothing; V apart, since it changes the picture
pick(s, value) = (strcol(12) eq "rnn" && strcol(6) eq word(systems, s) && column(5) >= least && column(5) <= most) ? value : NaN
few(value) = column(3) < 1000 ? value : NaN

# numbers of the systems that ran
ran = ""
do for [s = 1:words(systems)] {
    if (int(system(sprintf("grep -c ',%s,' '%s'", word(systems, s), peers))) > 0) { ran = ran." ".s }
}

# --- speed against H ---

do for [format in "svg png"] {
    if (format eq "png") {
        set terminal pngcairo size 1500,640 font "DejaVu Sans,12" background rgb "white"
    } else {
        set terminal svg size 1500,640 font "DejaVu Sans,14" background rgb "white"
    }
    set output folder."/speed.".format
    set multiplot
    set tmargin at screen 0.90
    set bmargin at screen 0.12
    set xlabel "hidden units H"
    set xtics (16, 32, 64, 128, 256, 512, 1024)
    set ytics (0.1, 1, 10, 100)
    set yrange [0.05:top]
    do for [panel = 1:2] {
        least = panel == 1 ? 1 : 2
        most = panel == 1 ? 1 : 1e9
        set title panel == 1 ? "one sequence (B = 1)" : "many side by side (B = 32; at H = 64, B = 8)"
        set xrange [panel == 1 ? 14 : 56 : 1200]
        set lmargin at screen panel == 1 ? 0.055 : 0.445
        set rmargin at screen panel == 1 ? 0.405 : 0.795
        if (panel == 1) { set ylabel "GFLOP/s of a whole training step"; unset key }
        if (panel == 2) { unset ylabel; set key at screen 0.805, 0.90 left top reverse Left samplen 2 spacing 1.4 noenhanced }
        plot peak with lines lc rgb "#b00000" dt 2 lw 1.5 title sprintf("peak, %.0f GFLOP/s", peak), \
             for [s in ran] peers using 2:(few(pick(s + 0, column(8)))) with lines lt (s + 0) notitle, \
             for [s in ran] peers using 2:(pick(s + 0, column(8))) with points lt (s + 0) notitle, \
             for [s in ran] keyentry with linespoints lt (s + 0) title word(titles, s + 0), \
             peers using 2:(pick(1, column(8))):(column(3) < 1000 ? "" : sprintf("V = %d", column(3))) with labels \
             offset 0, -1.2 textcolor rgb "#303030" font ",10" notitle
    }
    unset multiplot
    unset output
}

# --- the roofline ---

levels = "L1 L2 L3 memory"
roof(x, level) = figure(level) * x < peak ? figure(level) * x : peak
least = 1
most = 1e9
compared(list) = word(list, 1)." ".word(list, 2)." ".word(list, 3)." ".word(list, 4)." ".word(list, 5)   # not the slow ones
intensity(unused) = column(10) / column(11)

do for [format in "svg png"] {
    if (format eq "png") {
        set terminal pngcairo size 1100,720 font "DejaVu Sans,12" background rgb "white"
    } else {
        set terminal svg size 1100,720 font "DejaVu Sans,14" background rgb "white"
    }
    set output folder."/roofline.".format
    set title "whole training steps; a byte is one that a call reads or writes: W_{hh} counts in every time step"
    set xlabel "FLOP per byte"
    set ylabel "GFLOP/s"
    set xrange [0.4:200]
    set yrange [1:top]
    set xtics (0.5, 1, 2, 5, 10, 20, 50, 100, 200)
    set ytics (1, 2, 5, 10, 20, 50, 100)
    set lmargin at screen 0.08
    set rmargin at screen 0.97
    set tmargin at screen 0.92
    set bmargin at screen 0.10
    set key at graph 0.98, 0.04 right bottom reverse Left samplen 2 spacing 1.3 noenhanced
    plot for [l = 1:words(levels)] roof(x, word(levels, l)) with lines lc rgb "#909090" lw 1.5 dt l \
             title sprintf("%s, %.0f GB/s", word(levels, l), figure(word(levels, l))), \
         for [s in compared(ran)] peers using (pick(s + 0, intensity(0))):8 with points lt (s + 0) title word(titles, s + 0), \
         peers using (pick(1, intensity(0))):(column(8) * (strcol(1) eq "words" ? 0.8 : 1.16)):1 with labels \
             textcolor rgb "#08519c" font ",10" notitle
    unset output
}

# --- cells with gates: a group of bars for each row ---

gated = system(sprintf("awk -F, 'NR > 1 && $12 != \"rnn\" && !seen[$1]++ { print $1 }' '%s'", peers))
place(name) = sum [i = 1:words(gated)] (word(gated, i) eq name ? i : 0)
shown = ""   # systems with such rows
do for [s = 1:words(systems)] {
    lines = system(sprintf("awk -F, '$12 != \"rnn\" && $6 == \"%s\"' '%s' | wc -l", word(systems, s), peers))
    if (int(lines) > 0) { shown = shown." ".s }
}
bar = words(shown) > 0 ? 0.8 / words(shown) : 1
offset(s) = bar * (sum [i = 1:words(shown)] (word(shown, i) + 0 == s ? i - 0.5 : 0)) - 0.4

if (words(gated) > 0) {
    unset logscale
    set style fill solid 0.85 noborder
    do for [format in "svg png"] {
        if (format eq "png") {
            set terminal pngcairo size 1200,520 font "DejaVu Sans,12" background rgb "white"
        } else {
            set terminal svg size 1200,520 font "DejaVu Sans,14" background rgb "white"
        }
        set output folder."/gates.".format
        set title "gru and lstm, whole training steps (V = 65, T = 64; x32: B = 32, else B = 1)"
        unset xlabel
        set ylabel "GFLOP/s"
        set xrange [0.4:words(gated) + 0.6]
        set yrange [0:1.05 * peak]
        set xtics ("" 0) noenhanced
        do for [i = 1:words(gated)] { set xtics add (word(gated, i) i) }
        set ytics autofreq
        set lmargin at screen 0.08
        set rmargin at screen 0.77
        set bmargin at screen 0.10
        set key at screen 0.78, 0.90 left top reverse Left samplen 2 spacing 1.4 noenhanced
        plot peak with lines lc rgb "#b00000" dt 2 lw 1.5 title sprintf("peak, %.0f GFLOP/s", peak), \
             for [s in shown] peers using (strcol(12) ne "rnn" && strcol(6) eq word(systems, s + 0) ? \
                 place(strcol(1)) + offset(s + 0) : NaN):8:(0.92 * bar) with boxes lt (s + 0) title word(titles, s + 0)
        unset output
    }
}
