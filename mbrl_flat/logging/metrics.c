/* The numbers of a metrics.jsonl, one object of numbers a line, without its objects.
 *
 * What is read here is the plain case: each line {"name": number, ...} and a line feed, names
 * without escapes, no name twice in a line, integers of at most 18 digits, null for NaN. Whatever
 * else JSON allows, and every mistake, gives -1: then Python reads the file and says what is wrong. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *text;
    int64_t size, row; /* row: the last one that has the name */
    int32_t next;      /* the name that came after it the last time */
    int32_t kept;
} name_t;

static const char *spaces(const char *p) {
    while (*p == ' ' || *p == '\t') p++;
    return p;
}

static inline int digit(char c) { return (unsigned char)(c - '0') < 10; }

/* End of a JSON number or null at p, and its value if it is wanted; NULL if there is none. */
static const char *number(const char *p, int wanted, double *value) {
    if (*p == 'n' && !strncmp(p, "null", 4)) {
        *value = NAN;
        return p + 4;
    }
    const char *start = p, *first = p += *p == '-';
    uint64_t mantissa = 0;
    int64_t power = 0, digits;
    if (!digit(*p)) return NULL;
    while (digit(*p)) mantissa = 10 * mantissa + (uint64_t)(*p++ - '0');
    digits = p - first;
    if (*first == '0' && digits > 1) return NULL;
    int whole = *p != '.' && *p != 'e' && *p != 'E';
    if (whole && digits > 18) return NULL;
    if (whole && !mantissa) start = first; /* an integer zero has no sign */
    if (*p == '.') {
        const char *point = p++;
        while (digit(*p)) mantissa = 10 * mantissa + (uint64_t)(*p++ - '0');
        if (p == point + 1) return NULL;
        power = point + 1 - p;
        digits -= power;
    }
    if (*p == 'e' || *p == 'E') {
        int minus = *++p == '-', exponent = 0;
        if (minus || *p == '+') p++;
        if (!digit(*p)) return NULL;
        for (; digit(*p); p++) exponent = exponent < 9999 ? 10 * exponent + (*p - '0') : exponent;
        power += minus ? -exponent : exponent;
    }
    if (!wanted) return p;
#if LDBL_MANT_DIG == 64
    /* Both operands are exact, so the 64 bits are rounded once. To round them to 53 is right unless
     * they lie halfway between two doubles, which the exact value need not do. */
    if (digits <= 19 && power >= -27 && power <= 27) {
        static const long double tens[] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,
                                           1e7L,  1e8L,  1e9L,  1e10L, 1e11L, 1e12L, 1e13L,
                                           1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L, 1e20L,
                                           1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L};
        long double exact = power < 0 ? mantissa / tens[-power] : mantissa * tens[power];
        uint64_t bits;
        memcpy(&bits, &exact, 8);
        if ((bits & 2047) != 1024) {
            *value = *start == '-' ? -(double)exact : (double)exact;
            return p;
        }
    }
#endif
    char *end;
    *value = strtod(start, &end);
    return end == p ? p : NULL; /* in some languages the point is a comma */
}

/* The place of a name among those known, which it joins if it is new; -1 if there is no room. */
static int32_t find(name_t *names, int32_t *known, int32_t room, const char *text, int64_t size,
                    const char *keep) {
    for (int32_t i = 0; i < *known; i++)
        if (names[i].size == size && !memcmp(names[i].text, text, (size_t)size)) return i;
    if (*known == room) return -1;
    name_t *name = &names[*known];
    *name = (name_t){text, size, -1, 0, 0};
    for (int64_t n; (n = (int64_t)strlen(keep)); keep += n + 1)
        name->kept |= size >= n && !memcmp(text, keep, (size_t)n);
    return (*known)++;
}

/* Reads `size` bytes of text, which ends with a line feed and then a zero. `keep` has the beginnings
 * of the names that are wanted, each ended by a zero, and one more zero. For each of their values,
 * in the order of the file: which name, which row, and the value. Returns how many, or -1; counts:
 * rows, and names; where[2 i] and where[2 i + 1] are the first place and the size of name i. */
int64_t read_metrics(const char *text, int64_t size, const char *keep, int32_t room, int64_t most,
                     int16_t *which, int64_t *rows, double *values, int64_t *where,
                     int64_t *counts) {
    name_t *names = malloc(sizeof(name_t) * (size_t)room);
    const char *p = text, *end = text + size;
    int32_t known = 0;
    int64_t found = 0, row = 0;
    if (!names) return -1;
    for (; p < end; row++) {
        int32_t last = -1;
        do {
            p = spaces(p);
            if (*p++ != (last < 0 ? '{' : ',')) goto other;
            if (*(p = spaces(p)) != '"') goto other;
            const char *text = ++p;
            int32_t i = last < 0 ? 0 : names[last].next;
            int64_t length = i < known ? names[i].size : 0;
            if (i == known || end - p <= length || p[length] != '"' ||
                memcmp(p, names[i].text, (size_t)length)) {
                for (; *p != '"'; p++)
                    if ((unsigned char)*p < 32 || *p == '\\') goto other;
                i = find(names, &known, room, text, p - text, keep);
                if (i < 0) goto other;
                if (last >= 0) names[last].next = i;
            } else {
                p += length;
            }
            name_t *name = &names[last = i];
            if (name->row == row) goto other;
            name->row = row;
            if (*(p = spaces(p + 1)) != ':') goto other;
            double value;
            if (!(p = number(spaces(p + 1), name->kept, &value))) goto other;
            if (name->kept) {
                if (found == most) goto other;
                which[found] = (int16_t)i;
                rows[found] = row;
                values[found++] = value;
            }
        } while (*(p = spaces(p)) != '}');
        if (*(p = spaces(p + 1)) != '\n') goto other;
        p++;
    }
    counts[0] = row;
    counts[1] = known;
    for (int32_t i = 0; i < known; i++) {
        where[2 * i] = names[i].text - text;
        where[2 * i + 1] = names[i].size;
    }
    free(names);
    return found;
other:
    free(names);
    return -1;
}
