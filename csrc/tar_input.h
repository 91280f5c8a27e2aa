/* The buffered input of the archive reader. */
#ifndef CTR_TAR_INPUT_H
#define CTR_TAR_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "tar.h"

struct tar_input {
    int fd;
    int owner_fd;
    int at_end;
    size_t start;
    size_t end;
    uint8_t *buffer; /* TAR_BUFFER bytes */
};

/* Reads until `size` bytes (at most the buffer) stand at buffer + start, or the input ends. Returns how many do; -1 with errno. */
ssize_t input_need(struct tar_input *input, size_t size);

/* A number of a header, octal or in base 256; what does not fit is the largest or smallest there is.
 * 0, or -1 if it is no number. */
int header_number(const char *field, size_t size, int64_t *ret_number);

/* Digits with an optional sign; saturates as above. 0, or -1. */
int decimal_number(const char *text, size_t size, int64_t *ret_number);

/* Seconds with an optional fraction, as nanoseconds. 0, or -1. */
int decimal_time(const char *text, size_t size, int64_t *ret_ns);

#endif
