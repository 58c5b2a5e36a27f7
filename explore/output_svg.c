/* SPDX-License-Identifier: MIT */
/*
 * A counterexample as a picture that needs nothing else: a lane per actor, time goes down, a card
 * per step. Dashed lines say who went on, solid ones which write a read has seen, and the broken
 * property is at the end. The same steps as in the text of output_timeline.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

#define MARGIN      24
#define GUTTER      44 /* the steps' numbers */
#define CARD_MARGIN 10 /* between a card and its lane's edge */
#define PADDING     12
#define LINE        16 /* height of a line of text */
#define TOP         78 /* above the lanes */
#define HEAD        30 /* a lane's name */
#define CHARACTER   7.25
#define CARD_LINES  4u
#define TEXT_MAX    200u

struct card {
    struct check_step step;
    int lane, y, height;
    unsigned lines;
    char text[CARD_LINES][TEXT_MAX];
    char where[TEXT_MAX];
};

struct picture {
    FILE *to;
    const json_t *actors;
    struct card *card;
    size_t count;
    int lanes, lane_width, width, bottom;
    size_t columns; /* characters in a card */
};

static const char *const colours[] = {"#2563a8", "#b4540a", "#2e7d4f", "#7a3e9d",
                                      "#a3324b", "#3f6b74", "#555555"};

static const struct {
    const char *kind, *fill, *edge;
} looks[] = {
    {"read", "#ffffff", "#4b8bd0"},   {"write", "#fff6e6", "#e08a1e"},
    {"rmw", "#f6ecfb", "#8e4bb8"},    {"cas-failed", "#f6ecfb", "#b9a3c6"},
    {"drain", "#e8f7ef", "#2f9e63"},  {"wait", "#f1f3f5", "#868e96"},
    {"choice", "#fffbe0", "#c9a400"}, {"note", "none", "none"},
    {"fail", "#fdeaea", "#c62828"},
};

static void escape(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '<') {
            fputs("&lt;", to);
        } else if (c == '>') {
            fputs("&gt;", to);
        } else if (c == '&') {
            fputs("&amp;", to);
        } else if (c == '"') {
            fputs("&quot;", to);
        } else {
            fputc(c < 0x20 || c == 0x7F ? '?' : c, to);
        }
    }
}

static void text_at(FILE *to, const char *class, int x, int y, const char *text)
{
    fprintf(to, "<text class=\"%s\" x=\"%d\" y=\"%d\">", class, x, y);
    escape(to, text);
    fputs("</text>\n", to);
}

/* ---- Layout ---- */

static int lane_x(const struct picture *p, int lane)
{
    return MARGIN + GUTTER + lane * p->lane_width;
}

static int card_width(const struct picture *p)
{
    return p->lane_width - 2 * CARD_MARGIN;
}

static void fill_card(struct picture *p, struct card *card)
{
    char what[512];
    const char *rest = what;

    check_step_say(&card->step, what, sizeof(what));
    while (*rest != '\0' && card->lines < CARD_LINES) {
        size_t length = check_wrap(rest, p->columns);

        snprintf(card->text[card->lines++], TEXT_MAX, "%.*s", (int)length, rest);
        rest += length + (rest[length] == ' ');
    }
    check_step_where(&card->step, card->where, sizeof(card->where), p->columns);
    card->height = LINE * (int)(card->lines + (card->where[0] != '\0')) + 10;
}

static bool is_drawn(const struct check_step *step, bool verbose)
{
    return (verbose || step->decisive || step->name == NULL) && strcmp(step->kind, "fail") != 0;
}

static int lane_of(const struct check_step *step, size_t actors)
{
    return (size_t)step->actor < actors ? (int)step->actor : (int)actors;
}

static void choose_cards(struct picture *p, const json_t *timeline, bool verbose)
{
    size_t i;
    json_t *json;
    size_t actors = json_array_size(p->actors);

    p->lanes = (int)actors;
    json_array_foreach((json_t *)timeline, i, json)
    {
        struct card *card = &p->card[p->count];

        if (!check_step_parse(json, &card->step) || !is_drawn(&card->step, verbose)) {
            continue;
        }
        card->lane = lane_of(&card->step, actors);
        p->lanes = card->lane >= p->lanes ? card->lane + 1 : p->lanes;
        p->count++;
    }
    p->lanes += p->lanes == 0;
}

static void lay_out(struct picture *p)
{
    int y = TOP + HEAD + 14;

    p->lane_width = p->lanes <= 2 ? 400 : p->lanes == 3 ? 340 : 290;
    p->width = 2 * MARGIN + GUTTER + p->lanes * p->lane_width;
    p->columns = (size_t)((card_width(p) - 2 * PADDING) / CHARACTER);
    for (size_t i = 0; i < p->count; i++) {
        struct card *card = &p->card[i];

        fill_card(p, card);
        y += i > 0 && card->lane != p->card[i - 1].lane ? 14 : 0;
        card->y = y;
        y += card->height + 6;
    }
    p->bottom = y + 8;
}

/* ---- Drawing ---- */

static const char *lane_name(const struct picture *p, int lane)
{
    const char *name = json_string_value(json_array_get(p->actors, (size_t)lane));

    return name != NULL ? name : "environment";
}

static void draw_lanes(const struct picture *p)
{
    for (int i = 0; i < p->lanes; i++) {
        const char *colour = colours[(unsigned)i % (sizeof(colours) / sizeof(colours[0]))];
        int x = lane_x(p, i);

        fprintf(p->to,
                "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"%s\" "
                "fill-opacity=\"0.06\"/>\n",
                x + 3, TOP, p->lane_width - 6, p->bottom - TOP, colour);
        fprintf(p->to,
                "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"%s\"/>\n",
                x + 3, TOP, p->lane_width - 6, HEAD, colour);
        text_at(p->to, "lane", x + p->lane_width / 2, TOP + 20, lane_name(p, i));
    }
}

/* Who went on: from the foot of one card to the head of the next one, in another lane. */
static void draw_switches(const struct picture *p)
{
    for (size_t i = 1; i < p->count; i++) {
        const struct card *a = &p->card[i - 1];
        const struct card *b = &p->card[i];
        int from = lane_x(p, a->lane) + p->lane_width / 2;
        int to = lane_x(p, b->lane) + p->lane_width / 2;
        int y = a->y + a->height;

        if (a->lane != b->lane) {
            fprintf(p->to,
                    "<path class=\"switch\" d=\"M%d %d C%d %d %d %d %d %d\" "
                    "marker-end=\"url(#next)\"/>\n",
                    from, y, from, b->y, to, y, to, b->y - 1);
        }
    }
}

static bool changes(const struct check_step *step)
{
    return strcmp(step->kind, "write") == 0 || strcmp(step->kind, "rmw") == 0 ||
           strcmp(step->kind, "drain") == 0;
}

/* The card whose value a read has seen, if another actor made it. */
static const struct card *source_of(const struct picture *p, size_t reader)
{
    const struct card *card = &p->card[reader];
    const char *seen = strcmp(card->step.kind, "rmw") == 0 ? card->step.old : card->step.value;

    if (card->step.name == NULL || strcmp(card->step.kind, "write") == 0 ||
        strcmp(card->step.kind, "drain") == 0) {
        return NULL;
    }
    for (size_t i = reader; i-- > 0;) {
        const struct card *other = &p->card[i];

        if (other->step.name != NULL && changes(&other->step) &&
            strcmp(other->step.name, card->step.name) == 0) {
            return other->lane != card->lane && strcmp(other->step.value, seen) == 0 ? other : NULL;
        }
    }
    return NULL;
}

static void draw_flows(const struct picture *p)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct card *b = &p->card[i];
        const struct card *a = source_of(p, i);
        bool right = a != NULL && a->lane < b->lane;
        int from, to;

        if (a == NULL) {
            continue;
        }
        from = lane_x(p, a->lane) + (right ? p->lane_width - CARD_MARGIN : CARD_MARGIN);
        to = lane_x(p, b->lane) + (right ? CARD_MARGIN : p->lane_width - CARD_MARGIN);
        fprintf(
            p->to,
            "<path class=\"flow\" d=\"M%d %d C%d %d %d %d %d %d\" marker-end=\"url(#flow)\"/>\n",
            from, a->y + a->height / 2, from + (right ? 40 : -40), a->y + a->height / 2,
            to + (right ? -40 : 40), b->y + b->height / 2, to, b->y + b->height / 2);
    }
}

static size_t look_of(const char *kind)
{
    size_t i = 0;

    while (i + 1 < sizeof(looks) / sizeof(looks[0]) && strcmp(looks[i].kind, kind) != 0) {
        i++;
    }
    return i;
}

static void draw_card(const struct picture *p, const struct card *card)
{
    size_t look = look_of(card->step.kind);
    int x = lane_x(p, card->lane) + CARD_MARGIN;
    int y = card->y + 17;
    char number[24];
    bool note = strcmp(card->step.kind, "note") == 0;

    snprintf(number, sizeof(number), "%lld", (long long)card->step.number);
    text_at(p->to, "number", MARGIN + GUTTER - 8, y, number);
    fprintf(p->to,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\" fill=\"%s\" "
            "stroke=\"%s\"/>\n",
            x, card->y, card_width(p), card->height, looks[look].fill, looks[look].edge);
    fprintf(p->to, "<rect x=\"%d\" y=\"%d\" width=\"4\" height=\"%d\" fill=\"%s\"/>\n", x, card->y,
            card->height, looks[look].edge);
    for (unsigned n = 0; n < card->lines; n++, y += LINE) {
        text_at(p->to, note ? "note" : "what", x + PADDING, y, card->text[n]);
    }
    if (card->where[0] != '\0') {
        text_at(p->to, "where", x + PADDING, y, card->where);
    }
}

/* Wrapped text; returns the height that it takes. */
static int draw_block(const struct picture *p, const char *class, int x, int y, const char *text)
{
    size_t columns = (size_t)((p->width - 2 * MARGIN - 2 * PADDING) / CHARACTER);
    int height = 0;

    while (*text != '\0') {
        char line[TEXT_MAX * 2];
        size_t length = check_wrap(text, columns < sizeof(line) - 1 ? columns : sizeof(line) - 1);

        snprintf(line, sizeof(line), "%.*s", (int)length, text);
        text_at(p->to, class, x, y + height, line);
        height += LINE;
        text += length + (text[length] == ' ');
    }
    return height;
}

/* The end needs its height before its ground can be drawn: it is drawn into memory first. */
static char *end_texts(struct picture *p, const char *verdict, const char *replay, int *height)
{
    char *text = NULL;
    size_t size;
    FILE *whole = p->to;

    p->to = open_memstream(&text, &size);
    if (p->to != NULL) {
        *height = 22 + draw_block(p, "verdict", MARGIN + PADDING, p->bottom + 34, verdict);
        *height += 6 + draw_block(p, "replay", MARGIN + PADDING, p->bottom + 18 + *height, replay);
        fclose(p->to);
    }
    p->to = whole;
    return text;
}

static void draw_end(struct picture *p, const char *texts, int height, bool broken)
{
    fprintf(p->to,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"%s\" "
            "stroke=\"%s\" stroke-width=\"1.5\"/>\n%s",
            MARGIN, p->bottom + 12, p->width - 2 * MARGIN, height, broken ? "#fdeaea" : "#e8f7ef",
            broken ? "#c62828" : "#2f9e63", texts != NULL ? texts : "");
}

static void draw_head(const struct picture *p, int height, const char *title, const char *subtitle)
{
    fprintf(p->to,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\">\n<title>",
            p->width, height, p->width, height);
    escape(p->to, title);
    fputs("</title>\n<defs>\n"
          "<marker id=\"next\" markerWidth=\"7\" markerHeight=\"7\" refX=\"5\" refY=\"3\" "
          "orient=\"auto\"><path d=\"M0 0L6 3L0 6z\" fill=\"#868e96\"/></marker>\n"
          "<marker id=\"flow\" markerWidth=\"7\" markerHeight=\"7\" refX=\"5\" refY=\"3\" "
          "orient=\"auto\"><path d=\"M0 0L6 3L0 6z\" fill=\"#d9480f\"/></marker>\n"
          "</defs>\n<style>\n"
          "text{font:12px 'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#1f2328}\n"
          ".title{font:600 19px system-ui,'DejaVu Sans',sans-serif}\n"
          ".subtitle{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#57606a}\n"
          ".lane{font:600 13px system-ui,'DejaVu Sans',sans-serif;fill:#fff;text-anchor:middle}\n"
          ".number{fill:#8c959f;text-anchor:end;font-size:11px}\n"
          ".where{fill:#6e7781;font-size:11px}\n.note{font-style:italic;fill:#444c56}\n"
          ".verdict{font-weight:700}\n.replay{fill:#57606a}\n"
          ".switch{fill:none;stroke:#868e96;stroke-width:1.2;stroke-dasharray:4 3}\n"
          ".flow{fill:none;stroke:#d9480f;stroke-width:1.4;stroke-opacity:.75}\n"
          "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
          p->to);
    text_at(p->to, "title", MARGIN, 38, title);
    text_at(p->to, "subtitle", MARGIN, 60, subtitle);
}

static void draw(struct picture *p, const json_t *document, const struct check_outcome *o)
{
    const char *property = json_string_value(json_object_get(o->failure, "property"));
    const char *message = json_string_value(json_object_get(o->failure, "message"));
    const char *memory =
        json_string_value(json_object_get(json_object_get(document, "options"), "memory"));
    char title[160], subtitle[160], verdict[512];
    char *replay = check_replay_line(document, o);
    char *texts;
    int height = 0;

    snprintf(title, sizeof(title), "%s on %s", o->scenario, o->mode);
    snprintf(subtitle, sizeof(subtitle), "memory model %s; %zu of %lld steps", memory, p->count,
             (long long)json_integer_value(json_object_get(o->failure, "steps")));
    if (property != NULL) {
        snprintf(verdict, sizeof(verdict), "BROKEN %s: %s", property, message);
    } else {
        snprintf(verdict, sizeof(verdict), "No property is broken by this schedule.");
    }
    texts = end_texts(p, verdict, replay != NULL ? replay : "", &height);
    draw_head(p, p->bottom + 12 + height + MARGIN, title, subtitle);
    draw_lanes(p);
    draw_switches(p);
    for (size_t i = 0; i < p->count; i++) {
        draw_card(p, &p->card[i]);
    }
    draw_flows(p);
    draw_end(p, texts, height, property != NULL);
    fputs("</svg>\n", p->to);
    free(texts);
    free(replay);
}

static bool draw_outcome(const json_t *document, const struct check_outcome *o, FILE *to,
                         bool verbose)
{
    const json_t *timeline = json_object_get(o->failure, "timeline");
    struct picture p = {.to = to, .actors = json_object_get(o->failure, "actors")};

    p.card = calloc(json_array_size(timeline) + 1, sizeof(*p.card));
    if (p.card == NULL) {
        return false;
    }
    choose_cards(&p, timeline, verbose);
    lay_out(&p);
    draw(&p, document, o);
    free(p.card);
    return ferror(to) == 0;
}

static bool first_failure(const json_t *document, struct check_outcome *outcome)
{
    size_t i;
    json_t *json;
    char error[256];

    json_array_foreach(json_object_get(document, "results"), i, json)
    {
        if (check_outcome_parse(json, outcome, error, sizeof(error)) && outcome->failure != NULL) {
            return true;
        }
    }
    return false;
}

bool check_draw(const json_t *document, const char *file, bool verbose, char *error, size_t size)
{
    struct check_outcome outcome;
    FILE *to;
    bool good;

    if (!first_failure(document, &outcome)) {
        return true;
    }
    to = fopen(file, "w");
    if (to == NULL) {
        snprintf(error, size, "--svg: cannot write '%s': %s", file, strerror(errno));
        return false;
    }
    good = draw_outcome(document, &outcome, to, verbose);
    good = fclose(to) == 0 && good;
    if (!good) {
        snprintf(error, size, "--svg: cannot write '%s'", file);
    }
    return good;
}
