/* peer_report.h: what was measured, as a table that is Markdown too, and as CSV. */
#ifndef BPTT_PEER_REPORT_H
#define BPTT_PEER_REPORT_H

#include "peer_task.h"

enum { PEER_MOST = 8 }; /* peers of a match, in the order of peer_kinds */

typedef struct peer_match {
    peer_task task;
    void *peers[PEER_MOST];    /* NULL: does not take part */
    double seconds[PEER_MOST]; /* of a step, median; 0: not timed */
    double spread;             /* largest relative difference of a loss after the steps of the check */
} peer_match;

typedef struct peer_report {
    FILE *csv;
    bool shown[PEER_MOST]; /* peers that have a column */
    double peak;           /* FLOP per second, measured */
    char remarks[4096];    /* a line for each row, printed after the table */
} peer_report;

/* Measures the machine, writes machine.csv, begins peers.csv and the table.  Finish it even after a failure. */
bptt_status peer_report_begin(peer_report *report, const char *folder, bptt_error *error);
void peer_report_row(peer_report *report, const peer_match *match);
/* Adds a line to the remarks. */
void peer_report_remark(peer_report *report, const char *format, ...) BPTT_PRINTF(2, 3);
/* Prints the remarks; a CSV that could not be written is an error. */
bptt_status peer_report_end(peer_report *report, bptt_error *error);

#endif
