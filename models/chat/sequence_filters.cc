// Filters over sequences.
#include <algorithm>
#include <charconv>

#include "models/chat/filters.h"

namespace chainpump::models::chat {
namespace {

/// "a.b.0": attributes and indices one after another, as jinja2's make_attrgetter. Cut at every
/// dot, so that a doubled or last one names an empty attribute.
Value attribute_path(const FilterCall& call, Value value, std::string_view path) {
  for (bool more = true; more && call.rt.step(call.position);) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    more = dot != std::string_view::npos;
    if (more) path.remove_prefix(dot + 1);
    int32_t index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index =
        error == std::errc() && end == part.data() + part.size() && part.front() != '-';
    value = call.rt.item(value, is_index ? Value(int64_t{index}) : Value(part), call.position);
  }
  return value;
}

/// The arguments from `index` on, for a filter or test that is named by an argument.
Arguments rest_of(const Arguments& args, size_t index) {
  Arguments rest;
  for (size_t i = index; i < args.positional.size(); ++i)
    rest.positional.push_back(args.positional[i]);
  rest.named = args.named;
  return rest;
}

Value generator(const FilterCall& call, std::vector<Value> items) {
  return call.rt.list(std::move(items), call.position, ListKind::generator);
}

/// jinja2's map and select take anything false (none, too) for nothing.
std::vector<Value> items_if_true(const FilterCall& call) {
  if (!call.operand.truth()) return {};
  return call.rt.items_of(call.operand, call.position);
}

/// select and its kin: keeps the items (or those whose attribute) passes a test, by default truth.
Value choose(const FilterCall& call, bool by_attribute, bool keep) {
  const size_t test_index = by_attribute ? 1 : 0;
  const Text* path = nullptr;
  if (by_attribute) {
    path = call.rt.expect_text(call.args.get(0, ""), "the attribute", call.position);
    if (!path) return Value();
  }
  const Value* test = call.args.get(test_index, "");
  const Text* test_name = test ? call.rt.expect_text(test, "the test", call.position) : nullptr;
  const Arguments rest = rest_of(call.args, test_index + 1);
  std::vector<Value> out;
  for (const Value& item : items_if_true(call)) {
    if (!call.rt.step(call.position)) return Value();
    const Value subject = path ? attribute_path(call, item, path->bytes) : item;
    const bool passes = test_name
                            ? apply_test(call.rt, test_name->bytes, subject, rest, call.position)
                            : subject.truth();
    if (passes == keep) out.push_back(item);
  }
  return generator(call, std::move(out));
}

/// Text without regard to case, for sorting as jinja2 does by default.
Value sort_key(const FilterCall& call, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.text()) return value;
  if (!call.rt.step(call.position, static_cast<int64_t>(value.text()->bytes.size() / 4)))
    return Value();
  return Value(to_lower(*value.text()));
}

/// Stable; values that have no order are an error.
void sort_by_keys(const FilterCall& call, std::vector<std::pair<Value, Value>>& keyed,
                  bool reverse) {
  if (!call.rt.step(call.position, static_cast<int64_t>(keyed.size()) * 16)) return;
  bool ordered = true;
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    const auto order =
        compare(reverse ? b.first : a.first, reverse ? a.first : b.first, call.rt.budget);
    if (!order) ordered = false;
    return order.value_or(0) < 0;
  });
  if (!ordered) call.rt.invalid(call.position, "values of different kinds have no order");
  call.rt.step(call.position);
}

bool flag(const FilterCall& call, size_t index, std::string_view name) {
  const Value* value = call.args.get(index, name);
  return value && value->truth();
}

Value extreme(const FilterCall& call, int wanted) {
  const bool case_sensitive = flag(call, 0, "case_sensitive");
  std::optional<Value> best;
  for (const Value& item : call.rt.items_of(call.operand, call.position)) {
    if (!best) {
      best = item;
      continue;
    }
    const auto order = compare(sort_key(call, item, case_sensitive),
                               sort_key(call, *best, case_sensitive), call.rt.budget);
    if (!order) return call.rt.invalid(call.position, "values of different kinds have no order");
    if (*order == wanted) best = item;
  }
  return best.value_or(Value(Undefined{"the largest or smallest of nothing"}));
}

}  // namespace

Value length_filter(const FilterCall& call) {
  const Value& v = call.operand;
  if (const Text* text = v.text()) {
    if (!call.rt.step(call.position, static_cast<int64_t>(text->bytes.size() / 16))) return Value();
    return Value(static_cast<int64_t>(count_characters(text->bytes)));
  }
  if (v.list() && !v.is_generator()) return Value(static_cast<int64_t>(v.list()->items.size()));
  if (v.dict()) return Value(static_cast<int64_t>(v.dict()->entries.size()));
  if (v.is_undefined()) return Value(int64_t{0});
  return call.rt.invalid(call.position, fmt::format("'{}' has no length", v.type_name()));
}

Value first_filter(const FilterCall& call) {
  const auto items = call.rt.items_of(call.operand, call.position);
  return items.empty() ? Value(Undefined{"the first of nothing"}) : items.front();
}

Value last_filter(const FilterCall& call) {
  if (call.operand.is_generator())
    return call.rt.invalid(call.position, "a generator has no last item; make a list of it");
  const auto items = call.rt.items_of(call.operand, call.position);
  return items.empty() ? Value(Undefined{"the last of nothing"}) : items.back();
}

Value list_filter(const FilterCall& call) {
  return call.rt.list(call.rt.items_of(call.operand, call.position), call.position);
}

Value items_filter(const FilterCall& call) {
  std::vector<Value> out;
  if (call.operand.is_undefined()) return generator(call, {});
  if (!call.operand.dict())
    return call.rt.invalid(call.position,
                           fmt::format("'{}' has no items", call.operand.type_name()));
  for (const auto& [key, value] : call.operand.dict()->entries)
    out.push_back(call.rt.list({key, value}, call.position, ListKind::tuple));
  return generator(call, std::move(out));
}

Value join_filter(const FilterCall& call) {
  const Value* separator = call.args.get(0, "d");
  const Value* path = call.args.get(1, "attribute");
  const Text between = separator ? call.rt.str(*separator, call.position) : Text();
  Text out;
  bool first = true;
  for (Value item : call.rt.items_of(call.operand, call.position)) {
    if (!first) out.append(between);
    first = false;
    if (path && path->text()) item = attribute_path(call, item, path->text()->bytes);
    out.append(call.rt.str(item, call.position));
    if (out.bytes.size() > kTextBytesMax || call.rt.failed()) break;
  }
  return call.rt.text(std::move(out), call.position);
}

Value map_filter(const FilterCall& call) {
  const Value* path = call.args.positional.empty() ? call.args.get(0, "attribute") : nullptr;
  const Value* fallback = call.args.get(1, "default");
  const Value* name = path ? nullptr : call.args.get(0, "");
  std::vector<Value> out;
  const Text* text = call.rt.expect_text(path ? path : name, "map's argument", call.position);
  if (!text) return Value();
  const Arguments rest = rest_of(call.args, 1);
  for (const Value& item : items_if_true(call)) {
    if (!call.rt.step(call.position)) return Value();
    if (path) {
      Value value = attribute_path(call, item, text->bytes);
      out.push_back(value.is_undefined() && fallback ? *fallback : std::move(value));
    } else {
      out.push_back(apply_filter(call.rt, text->bytes, item, rest, call.position));
    }
  }
  return generator(call, std::move(out));
}

Value select_filter(const FilterCall& call) { return choose(call, false, true); }
Value reject_filter(const FilterCall& call) { return choose(call, false, false); }
Value selectattr_filter(const FilterCall& call) { return choose(call, true, true); }
Value rejectattr_filter(const FilterCall& call) { return choose(call, true, false); }

Value dictsort_filter(const FilterCall& call) {
  if (!call.operand.dict()) return call.rt.invalid(call.position, "dictsort needs a dict");
  const bool case_sensitive = flag(call, 0, "case_sensitive");
  const Value* by = call.args.get(1, "by");
  const bool by_value = by && by->text() && by->text()->bytes == "value";
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : call.operand.dict()->entries)
    keyed.emplace_back(sort_key(call, by_value ? value : key, case_sensitive),
                       call.rt.list({key, value}, call.position, ListKind::tuple));
  sort_by_keys(call, keyed, flag(call, 2, "reverse"));
  std::vector<Value> out;
  for (auto& entry : keyed) out.push_back(std::move(entry.second));
  return call.rt.list(std::move(out), call.position);
}

Value sort_filter(const FilterCall& call) {
  const bool case_sensitive = flag(call, 1, "case_sensitive");
  const Value* path = call.args.get(2, "attribute");
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : call.rt.items_of(call.operand, call.position)) {
    const Value key = path && path->text() ? attribute_path(call, item, path->text()->bytes) : item;
    keyed.emplace_back(sort_key(call, key, case_sensitive), item);
  }
  sort_by_keys(call, keyed, flag(call, 0, "reverse"));
  std::vector<Value> out;
  for (auto& entry : keyed) out.push_back(std::move(entry.second));
  return call.rt.list(std::move(out), call.position);
}

Value reverse_filter(const FilterCall& call) {
  std::vector<Value> items = call.rt.items_of(call.operand, call.position);
  std::reverse(items.begin(), items.end());
  if (call.operand.is_generator()) return call.rt.list(std::move(items), call.position);
  if (!call.operand.text()) return generator(call, std::move(items));
  Text out;
  for (const Value& item : items) out.append(*item.text());
  return call.rt.text(std::move(out), call.position);
}

Value unique_filter(const FilterCall& call) {
  const bool case_sensitive = flag(call, 0, "case_sensitive");
  std::vector<Value> keys;
  std::vector<Value> out;
  for (const Value& item : call.rt.items_of(call.operand, call.position)) {
    if (!call.rt.step(call.position)) return Value();
    const Value key = sort_key(call, item, case_sensitive);
    const auto same = [&](const Value& seen) { return equal(seen, key, call.rt.budget); };
    if (std::any_of(keys.begin(), keys.end(), same)) continue;
    keys.push_back(key);
    out.push_back(item);
  }
  return generator(call, std::move(out));
}

Value sum_filter(const FilterCall& call) {
  const Value* path = call.args.get(0, "attribute");
  const Value* start = call.args.get(1, "start");
  Value sum = start ? *start : Value(int64_t{0});
  for (Value item : call.rt.items_of(call.operand, call.position)) {
    if (path && path->text()) item = attribute_path(call, item, path->text()->bytes);
    if (!call.rt.step(call.position)) return Value();
    sum = binary_operation(call.rt, "+", sum, item, call.position);
  }
  return sum;
}

Value min_filter(const FilterCall& call) { return extreme(call, -1); }
Value max_filter(const FilterCall& call) { return extreme(call, 1); }

Value attr_filter(const FilterCall& call) {
  const Text* name = call.rt.expect_text(call.args.get(0, "name"), "attr's name", call.position);
  return name ? call.rt.attribute(call.operand, name->bytes, call.position) : Value();
}

}  // namespace chainpump::models::chat
