"""The list of public names. A change here is a change that users notice."""

import inspect

import stn

NAMES = """
Affine AnisotropicScale Applied Attention BSpline Bounded CPAB Displacement ExponentialAffine Family Fixed InputError
InverseCompositionalTransformer InverseWarp Kernel MatrixWarp MovedCorners Projective Pyramid Registration Rigid
SharedTrunkTransformer Similarity Space SpatialTransformer ThinPlateSpline Translation Velocity Volume Warp
affine_sample bounded export fixed from_boxes from_corners from_pixel_matrix grid_sample load_warp models
multi_scale_deformable_attention off_image_loss param_groups projective_sample read_itk read_nifti register sample_points
spatial_transformer_network splat text_edges thin_plate_sample write_itk write_nifti
"""


def test_the_front_page() -> None:
    assert sorted(stn.__all__) == sorted(NAMES.split())
    for name in stn.__all__:
        assert (inspect.getdoc(getattr(stn, name)) or "").strip(), name


def test_signatures() -> None:
    sampling = ["mode", "padding_mode", "fill_value", "align_corners"]
    quality = ["antialias", "gradient", "pyramid", "return_mask"]
    assert list(inspect.signature(stn.affine_sample).parameters) == ["image", "theta", "size", *sampling, *quality]
    assert list(inspect.signature(stn.projective_sample).parameters) == ["image", "matrix", "size", *sampling, *quality]
    own = ["image", "grid", "units", "relative"]
    assert list(inspect.signature(stn.grid_sample).parameters) == [*own, *sampling, *quality]
    registering = ["transform", "loss", "start", "spacing", "bending", "moving_mask", "fixed_mask", "landmarks"]
    registering += ["landmark_weight", "symmetric", "levels", "steps", "report"]
    assert list(inspect.signature(stn.register).parameters) == ["moving", "fixed", *registering]
    to_onnx = inspect.signature(stn.export.to_onnx).parameters
    assert list(to_onnx) == ["model", "example", "path", "opset", "lowering", "dynamic_batch"]
    assert list(inspect.signature(stn.export.to_program).parameters) == ["model", "example", "lowering", "dynamic_batch"]
    assert list(inspect.signature(stn.spatial_transformer_network).parameters) == ["input_fmap", "theta", "out_dims"]
