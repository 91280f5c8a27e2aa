/* Reading ahead from the input of an archive, and the three ways in which archives write numbers. */
#define _GNU_SOURCE
#include "tar_input.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One that is left alone must end: the writing end may live on in a process that knows nothing of it. */
static int wait_readable(const struct tar_input *input)
{
    struct pollfd fds[2] = {{.fd = input->fd, .events = POLLIN}, {.fd = input->owner_fd, .events = POLLIN}};

    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return -1;
        if (fds[0].revents)
            return 0;
        if (fds[1].revents)
            _exit(0);
    }
}

static ssize_t read_more(struct tar_input *input)
{
    for (;;) {
        ssize_t n = read(input->fd, input->buffer + input->end, TAR_BUFFER - input->end);

        if (n >= 0)
            return n;
        if (errno != EAGAIN && errno != EINTR)
            return -1;
        if (errno == EAGAIN && wait_readable(input) < 0)
            return -1;
    }
}

ssize_t input_need(struct tar_input *input, size_t size)
{
    if (input->end - input->start < size && input->start > 0) {
        memmove(input->buffer, input->buffer + input->start, input->end - input->start);
        input->end -= input->start;
        input->start = 0;
    }
    while (input->end - input->start < size && !input->at_end) {
        ssize_t n = read_more(input);

        if (n < 0)
            return -1;
        input->at_end = n == 0;
        input->end += (size_t)n;
    }
    return (ssize_t)(input->end - input->start < size ? input->end - input->start : size);
}

/* Two's complement over the whole field, without the top bit, which marks the form. */
static void binary_number(const uint8_t *field, size_t size, int64_t *ret_number)
{
    int negative = (field[0] & 0x40) != 0;
    uint8_t fill = negative ? 0xff : 0;
    uint64_t value = negative ? ~(uint64_t)0 : 0;
    uint8_t first = (uint8_t)((field[0] & 0x7f) | (negative ? 0x80 : 0));

    for (size_t i = 0; i < size; i++) {
        uint8_t byte = i == 0 ? first : field[i];

        if (size - i > 8 && byte != fill) {
            *ret_number = negative ? INT64_MIN : INT64_MAX;
            return;
        }
        value = value << 8 | byte;
    }
    if (((value >> 63) != 0) != negative)
        value = negative ? (uint64_t)INT64_MIN : (uint64_t)INT64_MAX;
    *ret_number = (int64_t)value;
}

int header_number(const char *field, size_t size, int64_t *ret_number)
{
    uint64_t value = 0;
    size_t start = 0;
    size_t end = size;

    if ((uint8_t)field[0] & 0x80) {
        binary_number((const uint8_t *)field, size, ret_number);
        return 0;
    }
    while (start < end && (field[start] == ' ' || field[start] == 0))
        start++;
    while (end > start && (field[end - 1] == ' ' || field[end - 1] == 0))
        end--;
    /* At most twelve octal digits: no overflow. */
    for (; start < end; start++) {
        if (field[start] < '0' || field[start] > '7')
            return -1;
        value = value << 3 | (uint64_t)(field[start] - '0');
    }
    *ret_number = (int64_t)value;
    return 0;
}

int decimal_number(const char *text, size_t size, int64_t *ret_number)
{
    int negative = size > 0 && text[0] == '-';
    size_t digits = size - (size_t)negative;
    int64_t value = 0;

    if (digits < 1 || digits > 20)
        return -1;
    for (size_t i = (size_t)negative; i < size; i++) {
        int digit = text[i] - '0';

        if (digit < 0 || digit > 9)
            return -1;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, negative ? -digit : digit, &value)) {
            value = negative ? INT64_MIN : INT64_MAX;
            /* The rest has to be digits as well. */
            for (i++; i < size; i++)
                if (text[i] < '0' || text[i] > '9')
                    return -1;
        }
    }
    *ret_number = value;
    return 0;
}

int decimal_time(const char *text, size_t size, int64_t *ret_ns)
{
    const char *dot = memchr(text, '.', size);
    size_t whole = dot ? (size_t)(dot - text) : size;
    int negative = size > 0 && text[0] == '-';
    int64_t seconds;
    int64_t fraction = 0;

    if (decimal_number(text, whole, &seconds) < 0 || size - whole > 65)
        return -1;
    for (size_t i = 0; i < 9 || whole + 1 + i < size; i++) {
        int digit = whole + 1 + i < size ? text[whole + 1 + i] - '0' : 0;

        if (digit < 0 || digit > 9)
            return -1;
        if (i < 9)
            fraction = fraction * 10 + digit;
    }
    if (__builtin_mul_overflow(seconds, 1000000000, ret_ns) ||
        __builtin_add_overflow(*ret_ns, negative ? -fraction : fraction, ret_ns))
        *ret_ns = negative ? INT64_MIN : INT64_MAX;
    return 0;
}
