// How filters are written: a function of one call. One thread.
#pragma once

#include "models/chat/runtime.h"

namespace chainpump::models::chat {

struct FilterCall {
  Runtime& rt;
  const Value& operand;
  const Arguments& args;
  Position position;
};

// Over sequences; sequence_filters.cc.
Value length_filter(const FilterCall& call);
Value first_filter(const FilterCall& call);
Value last_filter(const FilterCall& call);
Value list_filter(const FilterCall& call);
Value items_filter(const FilterCall& call);
Value join_filter(const FilterCall& call);
Value map_filter(const FilterCall& call);
Value select_filter(const FilterCall& call);
Value reject_filter(const FilterCall& call);
Value selectattr_filter(const FilterCall& call);
Value rejectattr_filter(const FilterCall& call);
Value dictsort_filter(const FilterCall& call);
Value sort_filter(const FilterCall& call);
Value reverse_filter(const FilterCall& call);
Value unique_filter(const FilterCall& call);
Value sum_filter(const FilterCall& call);
Value min_filter(const FilterCall& call);
Value max_filter(const FilterCall& call);
Value attr_filter(const FilterCall& call);

}  // namespace chainpump::models::chat
