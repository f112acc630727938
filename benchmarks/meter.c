/* A flow meter by hand, as a floor: what plain C makes of the same capture on one core.
 *
 * Reads a classic pcap of Ethernet frames, takes IPv4 and IPv6 out of VLAN tags and GTP-U, keeps
 * bidirectional flows by inner 5-tuple in a hash table with open addressing, counts packets, bytes,
 * sizes, gaps and TCP flags in each direction, keeps the first 50 packets one by one, and ends a
 * flow after 120 s of silence. It knows nothing of TCP state, handshakes, fragments, copies,
 * sessions or any wrapping but GTP-U, and trusts its input more than Veilwatch does.
 *
 *     cc -O2 -o meter meter.c -lm
 *     ./meter capture.pcap            measures flows and prints how many there were
 *     ./meter capture.pcap flows.csv  writes a line for each as well
 */

#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEQUENCE 50
#define IDLE_NS (120 * INT64_C(1000000000))
#define CHUNK (1 << 20)        /* bytes read at one time */
#define MAX_CAPTURED (1 << 18) /* longest record that is believed */
#define FIRST_CAPACITY (1 << 12)
#define NIL UINT32_MAX

enum { FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, FLAGS };

typedef struct {
    uint64_t address[2][2]; /* the smaller end first, so that both directions are equal */
    uint16_t port[2];
    uint32_t protocol;
} Key;

typedef struct {
    uint64_t packets, bytes, size_squares;
    int64_t first_ns, last_ns, gap_min, gap_max;
    double gap_squares; /* s^2 */
    uint32_t size_min, size_max;
    uint32_t flags[FLAGS];
} Side;

typedef struct {
    Key key;
    uint64_t hash;
    uint32_t older, newer; /* by last packet, oldest first */
    uint32_t initiator;    /* which end of the key sent the first packet */
    uint32_t used;
    int64_t first_ns, last_ns;
    Side side[2]; /* from the initiator, to the initiator */
    uint32_t gap_us[SEQUENCE];
    int16_t size[SEQUENCE]; /* negative: to the initiator */
} Flow;

typedef struct {
    Flow *flows;       /* capacity; those not in use are chained by `newer` */
    uint32_t *buckets; /* 2 * capacity, indices of flows */
    uint32_t capacity, mask, free, oldest, newest;
    uint64_t live, ended;
    double checksum; /* of what was measured, so that no compiler leaves it out */
    FILE *out;
    char *line;
} Table;

static void fail(const char *what)
{
    fprintf(stderr, "meter: %s\n", what);
    exit(1);
}

static void *allocated(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        fail("out of memory");
    return memory;
}

static uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }

static uint64_t be64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, 8);
    return __builtin_bswap64(value);
}

static uint64_t mixed(uint64_t h, uint64_t word)
{
    h = (h ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 32;
}

static uint64_t hash_of(const Key *key)
{
    uint64_t h = mixed(0, key->address[0][0]);
    h = mixed(h, key->address[0][1]);
    h = mixed(h, key->address[1][0]);
    h = mixed(h, key->address[1][1]);
    return mixed(h, (uint64_t)key->port[0] << 40 | (uint64_t)key->port[1] << 16 | key->protocol);
}

/* ---- writing ------------------------------------------------------------------------------ */

static char *put(char *at, uint64_t value)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        *at++ = digits[--count];
    return at;
}

static char *put_signed(char *at, int64_t value)
{
    if (value < 0)
        *at++ = '-';
    return put(at, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

/* Six decimals, which is what a microsecond needs. */
static char *put_real(char *at, double value)
{
    uint64_t millionths = (uint64_t)llround(value * 1e6), part = millionths % 1000000;
    at = put(at, millionths / 1000000);
    *at++ = '.';
    for (uint64_t unit = 100000; unit; unit /= 10)
        *at++ = (char)('0' + part / unit % 10);
    return at;
}

static char *put_address(char *at, const uint64_t half[2])
{
    if (half[0] == 0 && half[1] >> 32 == 0xFFFF) { /* ::ffff:0:0/96 stands for IPv4 */
        for (int shift = 24; shift >= 0; shift -= 8) {
            at = put(at, half[1] >> shift & 0xFF);
            if (shift)
                *at++ = '.';
        }
        return at;
    }
    for (int group = 0; group < 8; group++) {
        unsigned value = (unsigned)(half[group / 4] >> (48 - 16 * (group % 4)) & 0xFFFF);
        for (int shift = 12; shift >= 0; shift -= 4)
            *at++ = "0123456789abcdef"[value >> shift & 0xF];
        if (group < 7)
            *at++ = ':';
    }
    return at;
}

static double deviation(double sum, double squares, double count)
{
    double mean = sum / count, variance = squares / count - mean * mean;
    return variance > 0 ? sqrt(variance) : 0;
}

/* ---- flows --------------------------------------------------------------------------------- */

static void finish(Table *t, const Flow *f)
{
    char *at = t->line;
    bool text = t->out != NULL;
    if (text) {
        for (int end = 0; end < 2; end++) {
            int which = (int)f->initiator ^ end;
            at = put_address(at, f->key.address[which]);
            *at++ = ',';
            at = put(at, f->key.port[which]);
            *at++ = ',';
        }
        at = put(at, f->key.protocol);
        *at++ = ',';
        at = put_signed(at, f->first_ns);
        *at++ = ',';
        at = put_signed(at, f->last_ns);
    }
    for (int d = 0; d < 2; d++) {
        const Side *s = &f->side[d];
        double gaps = s->packets > 1 ? (double)(s->packets - 1) : 0;
        double span = (double)(s->last_ns - s->first_ns) / 1e9;
        double size_mean = s->packets ? (double)s->bytes / (double)s->packets : 0;
        double gap_mean = gaps ? span / gaps : 0;
        double size_std =
            s->packets
                ? deviation((double)s->bytes, (double)s->size_squares, (double)s->packets)
                : 0;
        double gap_std = gaps ? deviation(span, s->gap_squares, gaps) : 0;
        t->checksum += size_mean + size_std + gap_mean + gap_std;
        if (!text)
            continue;
        uint64_t whole[] = {s->packets, s->bytes, s->size_min, s->size_max};
        double real[] = {size_mean, size_std, span,
                         gaps ? (double)s->gap_min / 1e9 : 0,
                         gaps ? (double)s->gap_max / 1e9 : 0, gap_mean, gap_std};
        for (size_t k = 0; k < sizeof whole / sizeof *whole; k++) {
            *at++ = ',';
            at = put(at, whole[k]);
        }
        for (size_t k = 0; k < sizeof real / sizeof *real; k++) {
            *at++ = ',';
            at = put_real(at, real[k]);
        }
        for (int k = 0; k < FLAGS; k++) {
            *at++ = ',';
            at = put(at, s->flags[k]);
        }
    }
    t->ended++;
    if (!text)
        return;
    *at++ = ',';
    for (uint32_t k = 0; k < f->used; k++) {
        at = put_signed(at, f->size[k]);
        *at++ = ' ';
    }
    *at++ = ',';
    for (uint32_t k = 0; k < f->used; k++) {
        at = put(at, f->gap_us[k]);
        *at++ = ' ';
    }
    *at++ = '\n';
    if (fwrite(t->line, 1, (size_t)(at - t->line), t->out) != (size_t)(at - t->line))
        fail("cannot write");
}

static void unlinked(Table *t, const Flow *f)
{
    if (f->older == NIL)
        t->oldest = f->newer;
    else
        t->flows[f->older].newer = f->newer;
    if (f->newer == NIL)
        t->newest = f->older;
    else
        t->flows[f->newer].older = f->older;
}

static void newest(Table *t, uint32_t slot)
{
    Flow *f = &t->flows[slot];
    f->older = t->newest;
    f->newer = NIL;
    if (t->newest == NIL)
        t->oldest = slot;
    else
        t->flows[t->newest].newer = slot;
    t->newest = slot;
}

/* Take a flow out of the index; those behind it move up, so that no search stops too early. */
static void forget(Table *t, uint32_t slot)
{
    uint32_t hole = (uint32_t)t->flows[slot].hash & t->mask;
    while (t->buckets[hole] != slot)
        hole = (hole + 1) & t->mask;
    for (uint32_t at = (hole + 1) & t->mask; t->buckets[at] != NIL; at = (at + 1) & t->mask) {
        uint32_t home = (uint32_t)t->flows[t->buckets[at]].hash & t->mask;
        if (((at - home) & t->mask) >= ((at - hole) & t->mask)) {
            t->buckets[hole] = t->buckets[at];
            hole = at;
        }
    }
    t->buckets[hole] = NIL;
    unlinked(t, &t->flows[slot]);
    t->flows[slot].newer = t->free;
    t->free = slot;
    t->live--;
}

static void enter(Table *t, uint32_t slot)
{
    uint32_t at = (uint32_t)t->flows[slot].hash & t->mask;
    while (t->buckets[at] != NIL)
        at = (at + 1) & t->mask;
    t->buckets[at] = slot;
}

static void grow(Table *t, uint32_t capacity)
{
    t->flows = realloc(t->flows, capacity * sizeof *t->flows);
    free(t->buckets);
    t->buckets = malloc(2 * (size_t)capacity * sizeof *t->buckets);
    if (!t->flows || !t->buckets)
        fail("out of memory");
    memset(t->buckets, 0xFF, 2 * (size_t)capacity * sizeof *t->buckets);
    for (uint32_t slot = t->capacity; slot < capacity; slot++)
        t->flows[slot].newer = slot + 1 < capacity ? slot + 1 : NIL;
    t->free = t->capacity; /* grows only when nothing is free */
    t->capacity = capacity;
    t->mask = 2 * capacity - 1;
    for (uint32_t slot = t->oldest; slot != NIL; slot = t->flows[slot].newer)
        enter(t, slot);
}

static uint32_t flow_of(Table *t, const Key *key, uint32_t sender, int64_t now)
{
    uint64_t hash = hash_of(key);
    for (uint32_t at = (uint32_t)hash & t->mask; t->buckets[at] != NIL; at = (at + 1) & t->mask) {
        Flow *f = &t->flows[t->buckets[at]];
        if (f->hash == hash && !memcmp(&f->key, key, sizeof *key)) {
            uint32_t slot = t->buckets[at];
            if (t->newest != slot) {
                unlinked(t, f);
                newest(t, slot);
            }
            return slot;
        }
    }
    if (t->free == NIL)
        grow(t, 2 * t->capacity);
    uint32_t slot = t->free;
    Flow *f = &t->flows[slot];
    t->free = f->newer;
    memset(f, 0, offsetof(Flow, gap_us));
    f->key = *key;
    f->hash = hash;
    f->initiator = sender;
    f->first_ns = f->last_ns = now;
    newest(t, slot);
    enter(t, slot);
    t->live++;
    return slot;
}

static void expire(Table *t, int64_t now)
{
    while (t->oldest != NIL && now - t->flows[t->oldest].last_ns > IDLE_NS) {
        finish(t, &t->flows[t->oldest]);
        forget(t, t->oldest);
    }
}

static void update(Flow *f, uint32_t sender, int64_t now, uint32_t size, uint32_t flags)
{
    uint32_t d = sender ^ f->initiator;
    Side *s = &f->side[d];
    if (s->packets) {
        int64_t gap = now - s->last_ns;
        double seconds = (double)gap / 1e9;
        if (s->packets == 1 || gap < s->gap_min)
            s->gap_min = gap;
        if (gap > s->gap_max)
            s->gap_max = gap;
        s->gap_squares += seconds * seconds;
        if (size < s->size_min)
            s->size_min = size;
    } else {
        s->first_ns = now;
        s->size_min = size;
    }
    s->last_ns = now;
    s->packets++;
    s->bytes += size;
    s->size_squares += (uint64_t)size * size;
    if (size > s->size_max)
        s->size_max = size;
    for (int k = 0; k < FLAGS; k++)
        s->flags[k] += flags >> k & 1;
    if (f->used < SEQUENCE) {
        int64_t gap_us = (now - f->last_ns) / 1000;
        int16_t clipped = (int16_t)(size > INT16_MAX ? INT16_MAX : size);
        f->gap_us[f->used] = gap_us > UINT32_MAX ? UINT32_MAX : (uint32_t)gap_us;
        f->size[f->used++] = d ? (int16_t)-clipped : clipped;
    }
    f->last_ns = now;
}

/* ---- packets ------------------------------------------------------------------------------- */

typedef struct {
    uint64_t source[2], destination[2];
    uint32_t size, protocol;
    const uint8_t *payload;
} Ip;

static bool read_ip(const uint8_t *p, const uint8_t *end, Ip *ip)
{
    if (end - p >= 20 && p[0] >> 4 == 4) {
        uint32_t header = (p[0] & 0xFu) * 4;
        if (header < 20 || end - p < header || be16(p + 6) & 0x1FFF)
            return false;
        ip->source[0] = ip->destination[0] = 0;
        ip->source[1] = UINT64_C(0xFFFF) << 32 | be64(p + 8) << 32 >> 32;
        ip->destination[1] = UINT64_C(0xFFFF) << 32 | be64(p + 12) << 32 >> 32;
        ip->size = be16(p + 2);
        ip->protocol = p[9];
        ip->payload = p + header;
        return true;
    }
    if (end - p >= 40 && p[0] >> 4 == 6) {
        for (int half = 0; half < 2; half++) {
            ip->source[half] = be64(p + 8 + 8 * half);
            ip->destination[half] = be64(p + 24 + 8 * half);
        }
        ip->size = 40 + be16(p + 4);
        ip->protocol = p[6];
        ip->payload = p + 40;
        while (ip->protocol == 0 || ip->protocol == 43 || ip->protocol == 60) {
            if (end - ip->payload < 8)
                return false;
            ip->protocol = ip->payload[0];
            ip->payload += 8 * (ip->payload[1] + 1);
            if (ip->payload > end)
                return false;
        }
        return true;
    }
    return false;
}

/* Where the packet inside a G-PDU begins, NULL if there is none (TS 29.281, 5.1 and 5.2). */
static const uint8_t *inside_gtp(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 8 || (p[0] & 0xF0) != 0x30 || p[1] != 0xFF)
        return NULL;
    bool extended = p[0] & 0x04;
    p += p[0] & 0x07 ? 12 : 8;
    if (p > end)
        return NULL;
    if (extended)
        for (uint8_t next = p[-1]; next;) {
            if (end - p < 4 || p[0] == 0 || end - p < 4 * p[0])
                return NULL;
            p += 4 * p[0];
            next = p[-1];
        }
    return p;
}

static bool meter(Table *t, const uint8_t *p, const uint8_t *end, int64_t now)
{
    if (end - p < 14)
        return false;
    uint32_t type = be16(p + 12);
    p += 14;
    while ((type == 0x8100 || type == 0x88A8) && end - p >= 4) {
        type = be16(p + 2);
        p += 4;
    }
    Ip ip;
    if ((type != 0x0800 && type != 0x86DD) || !read_ip(p, end, &ip))
        return false;
    while (ip.protocol == 17 && end - ip.payload >= 8 &&
           (be16(ip.payload) == 2152 || be16(ip.payload + 2) == 2152)) {
        const uint8_t *inner = inside_gtp(ip.payload + 8, end);
        Ip next;
        if (!inner || !read_ip(inner, end, &next))
            break;
        ip = next;
    }
    uint32_t flags = 0, source = 0, destination = 0;
    if (ip.protocol == 6 || ip.protocol == 17) {
        if (end - ip.payload < (ip.protocol == 6 ? 20 : 8))
            return false;
        source = be16(ip.payload);
        destination = be16(ip.payload + 2);
        flags = ip.protocol == 6 ? ip.payload[13] : 0;
    }
    int order = memcmp(ip.source, ip.destination, sizeof ip.source);
    uint32_t sender = order ? order > 0 : source > destination;
    Key key;
    memset(&key, 0, sizeof key);
    memcpy(key.address[sender], ip.source, sizeof ip.source);
    memcpy(key.address[!sender], ip.destination, sizeof ip.destination);
    key.port[sender] = (uint16_t)source;
    key.port[!sender] = (uint16_t)destination;
    key.protocol = ip.protocol;
    expire(t, now);
    uint32_t slot = flow_of(t, &key, sender, now);
    update(&t->flows[slot], sender, now, ip.size, flags);
    return true;
}

static size_t filled(int file, uint8_t *buffer, size_t have, size_t most)
{
    while (have < most) {
        ssize_t got = read(file, buffer + have, most - have);
        if (got < 0)
            fail("cannot read");
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return have;
}

int main(int count, char **arguments)
{
    if (count < 2 || count > 3)
        fail("usage: meter capture.pcap [flows.csv]");
    int file = open(arguments[1], O_RDONLY);
    if (file < 0)
        fail("cannot open the capture");
    Table t = {.oldest = NIL, .newest = NIL, .free = NIL};
    if (count == 3) {
        t.out = fopen(arguments[2], "w");
        t.line = allocated(1, 1 << 14);
        if (!t.out)
            fail("cannot open the output");
    }
    grow(&t, FIRST_CAPACITY);

    size_t room = CHUNK + MAX_CAPTURED + 16;
    uint8_t *buffer = allocated(1, room);
    size_t have = filled(file, buffer, 0, room), at = 24;
    uint32_t magic, link;
    if (have < 24)
        fail("no pcap header");
    memcpy(&magic, buffer, 4);
    memcpy(&link, buffer + 20, 4);
    if ((magic != 0xA1B23C4D && magic != 0xA1B2C3D4) || link != 1)
        fail("no pcap of Ethernet frames in this machine's byte order");
    int64_t unit = magic == 0xA1B23C4D ? 1 : 1000;

    uint64_t packets = 0, metered = 0;
    for (;;) {
        uint32_t record[4]; /* seconds, fraction, captured, on the wire */
        if (have - at < 16 + MAX_CAPTURED) {
            memmove(buffer, buffer + at, have - at);
            have = filled(file, buffer, have - at, room);
            at = 0;
        }
        if (have - at < sizeof record)
            break;
        memcpy(record, buffer + at, sizeof record);
        if (record[2] > MAX_CAPTURED || have - at - 16 < record[2])
            break;
        const uint8_t *frame = buffer + at + 16;
        metered += meter(&t, frame, frame + record[2],
                         (int64_t)record[0] * 1000000000 + (int64_t)record[1] * unit);
        packets++;
        at += 16 + record[2];
    }
    while (t.oldest != NIL) {
        finish(&t, &t.flows[t.oldest]);
        forget(&t, t.oldest);
    }
    if (t.out && fclose(t.out))
        fail("cannot write");
    printf("%llu packets, %llu metered, %llu flows, %zu bytes a flow, checksum %.6g\n",
           (unsigned long long)packets, (unsigned long long)metered,
           (unsigned long long)t.ended, sizeof(Flow), t.checksum);
    return 0;
}
