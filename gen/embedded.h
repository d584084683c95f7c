/* embedded.h: the texts that the program carries: templates/, gen/cells/ and runtime/diagnose.gp, turned into C by the Makefile.  Needs no file at run time. */
#ifndef BPTT_EMBEDDED_H
#define BPTT_EMBEDDED_H

/* The text of e.g. "templates/model.c" or "cells/rnn.lua"; NULL: there is none of that name.  Static. */
const char *bptt_embedded(const char *name);

#endif
