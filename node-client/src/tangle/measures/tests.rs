//! The published vectors, and random graphs against the definitions.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::tangle::white_flag;

/// Blocks by name with their own weight and what they approve, as a graph and its places.
fn graph(blocks: &BTreeMap<String, (u64, Vec<String>)>) -> (Graph, BTreeMap<String, usize>) {
    let names: Vec<&str> = blocks.keys().map(String::as_str).collect();
    let order = white_flag::order(&names, |name| {
        blocks.get(*name).map(|(_, parents)| parents.iter().map(String::as_str).collect())
    });
    let (mut graph, mut places) = (Graph::default(), BTreeMap::new());
    for name in order {
        let (own_weight, parents) = &blocks[name];
        // A block that approves itself has no place yet: none that is in the graph.
        let parents = parents.iter().map(|parent| places.get(parent).copied().unwrap_or(usize::MAX));
        let place = graph.push(*own_weight, parents.collect::<Vec<_>>());
        places.insert(name.to_owned(), place);
    }
    (graph, places)
}

fn names(value: &Value) -> Vec<String> {
    let name = |name: &Value| name.as_str().map_or_else(|| name.to_string(), str::to_owned);
    value.as_array().unwrap().iter().map(name).collect()
}

/// Graph facts of IRI's `CumulativeWeightCalculatorTest`.
#[test]
fn the_five_published_graphs_weigh_what_they_should() {
    let file: Value =
        serde_json::from_str(include_str!("../../../vectors/iri_cumulative_weight.json")).unwrap();
    let own_weight = file["own_weight"].as_u64().unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let approves = case["approves"].as_object().unwrap();
        let mut blocks = BTreeMap::from([("0".to_owned(), (own_weight, Vec::new()))]);
        blocks.extend(approves.iter().map(|(name, parents)| (name.clone(), (own_weight, names(parents)))));
        let (graph, places) = graph(&blocks);
        let weights = graph.cumulative_weights();
        let wanted = case["cw"].as_object().unwrap();
        assert_eq!(wanted.len(), graph.len());
        for (name, weight) in wanted {
            let place = places[name];
            assert_eq!(Some(weights[place]), weight.as_u64(), "{}: block {name}", case["name"]);
            assert_eq!(graph.measures(place).unwrap().cumulative_weight, weights[place]);
        }
    }
}

/// What the white paper's text says of its figures 1 and 2.
#[test]
fn the_white_papers_figures_measure_what_the_text_says() {
    let file: Value =
        serde_json::from_str(include_str!("../../../vectors/tangle_whitepaper_weights.json")).unwrap();
    let said = &file["published_statements"];
    let one = &file["one_consistent_DAG_reconstructed_by_us_not_read_from_figure"];
    // G approves the genesis, which the paper's sums leave out.
    let mut blocks = BTreeMap::from([("genesis".to_owned(), (0, Vec::new()))]);
    for (name, own_weight) in said["own_weights_from_sums"].as_object().unwrap() {
        let mut parents = names(&one["approves"][name]);
        if parents.is_empty() {
            parents.push("genesis".to_owned());
        }
        blocks.insert(name.clone(), (own_weight.as_u64().unwrap(), parents));
    }
    let (before, places) = graph(&blocks);
    let measures = |name: &str| before.measures(places[name]).unwrap();
    for (name, (own_weight, _)) in blocks.iter().filter(|(name, _)| *name != "genesis") {
        let got = measures(name);
        assert_eq!(got.own_weight, *own_weight);
        assert_eq!(Some(got.cumulative_weight), one["cw_computed"][name].as_u64(), "{name}");
        assert_eq!(Some(got.score), one["score_computed"][name].as_u64(), "{name}");
    }
    assert_eq!(Some(measures("F").cumulative_weight), said["cw_F"].as_u64());
    assert_eq!(Some(measures("A").score), said["score_A"].as_u64());
    assert_eq!(Some(measures("C").score), said["score_C"].as_u64());
    for name in ["G", "D"] {
        assert_eq!(Some(measures(name).height), said[format!("height_{name}")].as_u64());
        assert_eq!(Some(measures(name).depth), said[format!("depth_{name}")].as_u64());
    }
    let tips = |graph: &Graph, places: &BTreeMap<String, usize>| -> Vec<String> {
        let children = graph.children();
        places
            .iter()
            .filter(|(_, place)| children[**place].is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    };
    assert_eq!(tips(&before, &places), names(&said["tips"]));

    let after = &said["after_X_approves_A_and_C"];
    let own_weight = after["X_own_weight"].as_u64().unwrap();
    blocks.insert("X".to_owned(), (own_weight, vec!["A".to_owned(), "C".to_owned()]));
    let (with_x, places_with_x) = graph(&blocks);
    let weights = with_x.cumulative_weights();
    for name in places.keys() {
        let more = weights[places_with_x[name]] - measures(name).cumulative_weight;
        assert_eq!(Some(more), after["all_others_increase_by"].as_u64(), "{name}");
    }
    assert_eq!(weights[places_with_x["X"]], own_weight);
    assert_eq!(tips(&with_x, &places_with_x), [after["only_tip"].as_str().unwrap()]);
}

/// The definitions, word by word.
struct Naive(Vec<(u64, Vec<usize>)>);

impl Naive {
    fn past(&self, block: usize) -> BTreeSet<usize> {
        let parents = self.0[block].1.iter();
        parents.flat_map(|parent| self.past(*parent)).chain([block]).collect()
    }

    fn height(&self, block: usize) -> u64 {
        self.0[block].1.iter().map(|parent| 1 + self.height(*parent)).max().unwrap_or(0)
    }

    fn depth(&self, block: usize) -> u64 {
        let children = (0..self.0.len()).filter(|child| self.0[*child].1.contains(&block));
        children.map(|child| 1 + self.depth(child)).max().unwrap_or(0)
    }

    fn weigh(&self, blocks: impl IntoIterator<Item = usize>) -> u64 {
        blocks.into_iter().map(|block| self.0[block].0).sum()
    }

    fn measures(&self, block: usize) -> Measures {
        let approve = (0..self.0.len()).filter(|other| self.past(*other).contains(&block));
        Measures {
            own_weight: self.0[block].0,
            cumulative_weight: self.weigh(approve),
            score: self.weigh(self.past(block)),
            height: self.height(block),
            depth: self.depth(block),
        }
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        for (own_weight, parents) in &self.0 {
            graph.push(*own_weight, parents.iter().copied());
        }
        graph
    }
}

proptest! {
    #[test]
    fn random_graphs_measure_as_defined(
        rows in proptest::collection::vec((0_u64..20, proptest::collection::vec(any::<prop::sample::Index>(), 0..4)), 1..13)
    ) {
        let blocks = rows.into_iter().enumerate().map(|(place, (own_weight, parents))| {
            let parents = parents.iter().filter(|_| place > 0).map(|parent| parent.index(place));
            (own_weight, parents.collect())
        });
        let naive = Naive(blocks.collect());
        let graph = naive.graph();
        let weights = graph.cumulative_weights();
        for (place, weight) in weights.iter().enumerate() {
            let wanted = naive.measures(place);
            prop_assert_eq!(graph.measures(place), Some(wanted));
            prop_assert_eq!(*weight, wanted.cumulative_weight);
        }
        prop_assert_eq!(graph.measures(weights.len()), None);
    }
}

#[test]
fn weights_that_are_counted_in_parts_add_up() {
    let mut graph = Graph::default();
    let mut draws = crate::tangle::tips::draws(1);
    for place in 0..3 * COLUMNS + 7 {
        let mut earlier = || crate::tangle::tips::below(draws.next().unwrap(), place.min(30)) + 1;
        let parents = [place.checked_sub(earlier()), place.checked_sub(earlier())];
        graph.push(u64::try_from(place % 9).unwrap(), parents.into_iter().flatten());
    }
    let weights = graph.cumulative_weights();
    for place in (0..graph.len()).step_by(13) {
        assert_eq!(weights[place], graph.measures(place).unwrap().cumulative_weight, "block {place}");
    }
}

#[test]
fn sums_beyond_the_largest_number_stop_there() {
    let mut graph = Graph::default();
    let first = graph.push(u64::MAX, []);
    graph.push(u64::MAX, [first]);
    assert_eq!(graph.cumulative_weights(), [u64::MAX; 2]);
    assert_eq!(graph.measures(first).unwrap().cumulative_weight, u64::MAX);
    assert!(!graph.is_empty() && Graph::default().cumulative_weights().is_empty());
}
