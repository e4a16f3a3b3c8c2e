#include "graph/yaml_events.h"

#include <libfyaml.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <unordered_map>

#include "base/check.h"

namespace chainpump::graph {
namespace {

/// Length of the valid UTF-8 sequence at text[i], or 0 (overlong, surrogate, too large, cut).
size_t utf8_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[i + k]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || i + length > text.size()) return 0;
  for (size_t k = 1; k < length; ++k)
    if ((byte(k) & 0xC0) != 0x80) return 0;
  const bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
  const bool outside = (first == 0xED && byte(1) > 0x9F) || (first == 0xF4 && byte(1) > 0x8F);
  return overlong || outside ? 0 : length;
}

/// What the library must never see: it stops silently at NUL, and takes other encodings.
std::optional<Diagnostic> refuse_bytes(std::string_view text) {
  if (text.size() > YamlLimits::kFileBytesMax)
    return Diagnostic{{},
                      fmt::format("the file has {} bytes, at most {} are read", text.size(),
                                  YamlLimits::kFileBytesMax)};
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    return Diagnostic{{}, "the file is UTF-16, must be UTF-8"};
  Position at;
  size_t line_begin = 0;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\0') return Diagnostic{at, "a NUL byte (is this a text file in UTF-8?)"};
    const size_t length = utf8_length(text, i);
    if (length == 0) return Diagnostic{at, "not valid UTF-8"};
    if (i == line_begin && text[i] == '%') return Diagnostic{at, "YAML directives are not allowed"};
    if (i - line_begin >= YamlLimits::kLineBytesMax)
      return Diagnostic{{at.line, 1},
                        fmt::format("a line of over {} bytes", YamlLimits::kLineBytesMax)};
    const bool newline = text[i] == '\n';
    i += length;
    at.column = newline ? 1 : at.column + 1;
    at.line += newline;
    if (newline) line_begin = i;
  }
  return std::nullopt;
}

struct DestroyParser {
  void operator()(fy_parser* parser) const { fy_parser_destroy(parser); }
};
struct DestroyDiag {
  void operator()(fy_diag* diag) const { fy_diag_destroy(diag); }
};

/// Builds the tree while events come; after the first error of structure it stops.
class Reader {
 public:
  Reader(std::string_view text, Diagnostics& out) : text_(text), out_(out) {}

  bool read(YamlNode& root) {
    if (!open()) return false;
    bool good = true;
    for (bool more = true; more && good;) {
      fy_event* event = fy_parser_parse(parser_.get());
      if (event == nullptr) {
        good = !fy_parser_get_stream_error(parser_.get());
        break;
      }
      more = event->type != FYET_STREAM_END;
      good = take(*event, root);
      fy_parser_event_free(parser_.get(), event);
    }
    if (!good && !reported_) report_syntax();
    // What was cut short would only raise complaints that are not the writer's fault.
    if (!good && open_.size() > 1 && !root.entries.empty()) root.entries.pop_back();
    if (good && !has_root_) fail({}, "the file holds no graph");
    return good && has_root_ && out_.empty();
  }

 private:
  struct Open {
    YamlNode* node;
    bool has_key = false;
    std::string key;
    Position key_at;
    std::unordered_map<std::string, int> lines;  // of the keys so far
    YamlNode dropped;                            // the value of a duplicate key goes here
  };

  static void ignore(fy_diag*, void*, const char*, size_t) {}

  bool open() {
    fy_diag_cfg config{};
    fy_diag_cfg_default(&config);
    config.fp = nullptr;
    config.output_fn = ignore;
    config.level = FYET_ERROR;
    config.colorize = false;
    diag_.reset(fy_diag_create(&config));
    // Collected, because showing an error with its line of source reads stray memory in 0.7.12
    // (tests/fuzz/corpus/graph/shown_error_crash.yaml).
    if (diag_) fy_diag_set_collect_errors(diag_.get(), true);
    fy_parse_cfg parse{};
    parse.search_path = "";
    parse.flags = static_cast<fy_parse_cfg_flags>(FYPCF_DISABLE_MMAP_OPT);
    parse.diag = diag_.get();
    parser_.reset(diag_ ? fy_parser_create(&parse) : nullptr);
    if (parser_ && fy_parser_set_string(parser_.get(), text_.data(), text_.size()) == 0)
      return true;
    return fail({}, "the YAML parser cannot be made");
  }

  bool fail(Position at, std::string message) {
    reported_ = true;
    out_.add(at, std::move(message));
    return false;
  }

  /// The library's first complaint.
  void report_syntax() {
    void* at_first = nullptr;
    const fy_diag_error* error = fy_diag_errors_iterate(diag_.get(), &at_first);
    if (error == nullptr || error->msg == nullptr) {
      fail(last_, "not valid YAML");
      return;
    }
    // It may quote the file: nothing of that may act on a terminal.
    std::string what = std::string(std::string_view(error->msg).substr(0, 200));
    std::replace_if(
        what.begin(), what.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
    fail({std::max(error->line, 1), std::max(error->column, 1)},
         fmt::format("not valid YAML: {}", what));
  }

  Position position(fy_token* token) {
    const fy_mark* mark = token ? fy_token_start_mark(token) : nullptr;
    if (mark != nullptr) last_ = {mark->line + 1, mark->column + 1};
    return last_;
  }

  bool plain(fy_token* anchor, fy_token* tag) {
    if (anchor != nullptr) return fail(position(anchor), "anchors (&x) are not allowed");
    if (tag != nullptr) return fail(position(tag), "tags (!x) are not allowed");
    return true;
  }

  bool take(const fy_event& event, YamlNode& root) {
    switch (event.type) {
      case FYET_NONE:
      case FYET_STREAM_START:
      case FYET_STREAM_END:
      case FYET_DOCUMENT_END:
        return true;
      case FYET_DOCUMENT_START:
        if (++num_documents_ == 1) return true;
        return fail(position(event.document_start.document_start),
                    "a second document; one file describes one deployment");
      case FYET_ALIAS:
        return fail(position(event.alias.anchor), "aliases (*x) are not allowed");
      case FYET_SCALAR:
        return plain(event.scalar.anchor, event.scalar.tag) && scalar(event.scalar.value, root);
      case FYET_MAPPING_START:
        return plain(event.mapping_start.anchor, event.mapping_start.tag) &&
               start(YamlNode::Kind::mapping, event.mapping_start.mapping_start, root);
      case FYET_SEQUENCE_START:
        return plain(event.sequence_start.anchor, event.sequence_start.tag) &&
               start(YamlNode::Kind::sequence, event.sequence_start.sequence_start, root);
      case FYET_MAPPING_END:
      case FYET_SEQUENCE_END:
        CHECK(!open_.empty());
        open_.pop_back();
        return true;
    }
    return fail(last_, "not valid YAML");
  }

  bool scalar(fy_token* token, YamlNode& root) {
    size_t length = 0;
    const char* text = token ? fy_token_get_text(token, &length) : nullptr;
    const bool empty = token == nullptr || fy_token_start_mark(token) == nullptr;
    if (!open_.empty() && open_.back().node->kind == YamlNode::Kind::mapping &&
        !open_.back().has_key)
      return key({text ? text : "", text ? length : 0}, position(token));
    const Position key_at = open_.empty() ? Position{} : open_.back().key_at;
    YamlNode* node = place(root);
    if (node == nullptr) return false;
    node->at = empty && !open_.empty() ? key_at : position(token);
    node->empty = empty;
    if (text != nullptr) node->text.assign(text, length);
    return true;
  }

  bool key(std::string_view text, Position at) {
    if (text == "<<") return fail(at, "merge keys (<<) are not allowed");
    Open& open = open_.back();
    open.has_key = true;
    open.key = text;
    open.key_at = at;
    return true;
  }

  bool start(YamlNode::Kind kind, fy_token* token, YamlNode& root) {
    const Position at = position(token);
    if (!open_.empty() && open_.back().node->kind == YamlNode::Kind::mapping &&
        !open_.back().has_key)
      return fail(at, "a key must be a plain word");
    if (open_.size() >= YamlLimits::kDepthMax)
      return fail(at, fmt::format("nested deeper than {} levels", YamlLimits::kDepthMax));
    YamlNode* node = place(root);
    if (node == nullptr) return false;
    node->kind = kind;
    node->at = at;
    open_.push_back(std::make_unique<Open>());
    open_.back().node = node;
    return true;
  }

  /// Where the next value belongs. Stays valid while its own children are read: a parent gets no
  /// other child before this one has ended.
  YamlNode* place(YamlNode& root) {
    if (++num_nodes_ > YamlLimits::kNodesMax) {
      fail(last_, fmt::format("more than {} values", YamlLimits::kNodesMax));
      return nullptr;
    }
    if (open_.empty()) {
      has_root_ = true;
      return &root;
    }
    Open& parent = open_.back();
    if (parent.node->kind == YamlNode::Kind::sequence) return &parent.node->items.emplace_back();
    parent.has_key = false;
    const auto [first, is_new] = parent.lines.emplace(parent.key, parent.key_at.line);
    if (!is_new) {
      out_.add(parent.key_at, fmt::format("duplicate key '{}' (first on line {})",
                                          shown(parent.key), first->second));
      parent.dropped = {};
      return &parent.dropped;
    }
    parent.node->entries.push_back({std::move(parent.key), parent.key_at, {}});
    return &parent.node->entries.back().value;
  }

  /// A stack of owners whose addresses stay, since nodes point into `dropped`.
  struct Stack {
    std::vector<std::unique_ptr<Open>> items;
    bool empty() const { return items.empty(); }
    size_t size() const { return items.size(); }
    Open& back() { return *items.back(); }
    void push_back(std::unique_ptr<Open> open) { items.push_back(std::move(open)); }
    void pop_back() { items.pop_back(); }
  };

  std::string_view text_;
  Diagnostics& out_;
  std::unique_ptr<fy_diag, DestroyDiag> diag_;
  std::unique_ptr<fy_parser, DestroyParser> parser_;
  Stack open_;
  Position last_;
  int num_documents_ = 0;
  int num_nodes_ = 0;
  bool has_root_ = false;
  bool reported_ = false;
};

}  // namespace

bool read_yaml(std::string_view text, YamlNode& root, Diagnostics& out) {
  if (const auto refused = refuse_bytes(text)) {
    out.add(refused->at, refused->message);
    return false;
  }
  return Reader(text, out).read(root);
}

}  // namespace chainpump::graph
