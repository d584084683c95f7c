/* status.c: formats the one line that an error consists of.  See status.h. */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>

bptt_status bptt_fail(bptt_error *error, bptt_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    /* A stranger's text must neither break the line nor reach the terminal as an escape sequence. */
    for (char *c = error->text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) { *c = '?'; }
    }
    return status;
}
